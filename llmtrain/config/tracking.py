"""Section `tracking`: MLflow and the measurements of the machine."""

from llmtrain.config.section import Name, PositiveFloat, Section


class TrackingConfig(Section):
    """Metrics always go to `metrics.jsonl` in the run folder; MLflow mirrors the run folder."""

    mlflow: bool = True
    """Mirror the run to MLflow from a process of its own."""
    tracking_uri: str | None = None
    """MLflow server; null = the database `mlflow.db` in `run.root`."""
    experiment: Name = "llmtrain"
    """MLflow experiment."""
    cluster: str | None = None
    """Description that the run is planned with, to record planned beside measured: a name in configs/clusters or a YAML
    file; null = the one of this device."""
    system_interval_seconds: PositiveFloat = 10.0
    """Seconds between two samples of `system/*`."""
    peak_flops: PositiveFloat | None = None
    """Peak FLOP/s of one rank for model FLOPs utilization; null = measured at start with a matrix product."""
