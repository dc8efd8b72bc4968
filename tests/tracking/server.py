"""MLflow's own server for tests, small enough to start in seconds: `python server.py PORT FOLDER`.

A file `FOLDER/delay` holds the seconds to wait before every answer, a file `FOLDER/broken` makes every answer a 500.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def serve(port: int, folder: Path) -> None:
    """Answer until killed."""
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'server.db'}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": (folder / "artifacts").as_uri(),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    from mlflow.server import app
    from werkzeug.serving import make_server

    def with_faults(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if (folder / "delay").exists():
            time.sleep(float((folder / "delay").read_text()))
        if (folder / "broken").exists():
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"out of order"]
        answer: Iterable[bytes] = app(environ, start_response)
        return answer

    make_server("127.0.0.1", port, with_faults, threaded=True).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
