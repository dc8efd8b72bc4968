"""What a run tells: metrics in the run folder, their mirror in MLflow, throughput, memory, the console."""
