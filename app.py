"""Start the page: ``python app.py``. Also the entry point of a Hugging Face Space."""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Sequence

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    options = argparse.ArgumentParser(description="CLIP Tuning Lab: zero-shot against tuned CLIP on your own photos.")
    options.add_argument("--host", default="0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1")
    options.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT") or 7860))
    options.add_argument("--share", action="store_true", help="also make a public link (off by default)")
    options.add_argument("--no-mcp", dest="mcp", action="store_false", help="no MCP server beside the API")
    options.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default=os.environ.get("CTL_DEVICE") or None,
        help="where to compute (default: cuda where there is one)",
    )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is interrupted."""
    options = parser().parse_args(arguments)
    if options.device:
        os.environ["CTL_DEVICE"] = options.device
    if options.share or options.host not in ("127.0.0.1", "localhost", "::1"):
        os.environ.setdefault("CTL_LOCAL_PATHS", "no")  # strangers name what is on the hub, not this machine's files
    from engine import temporary

    temporary.sweep()
    uploads = temporary.make()  # what the browser sends goes with this process
    atexit.register(shutil.rmtree, uploads, ignore_errors=True)
    os.environ.setdefault("GRADIO_TEMP_DIR", str(uploads))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else nothing is tidied up
    from demo import app as page
    from demo.workspace import Workspaces
    from engine.data.images import Limits
    from engine.devices import device_of
    from engine.errors import LabError

    try:
        device_of()
        limits = Limits.from_environment()
    except LabError as error:
        raise SystemExit(str(error)) from None
    workspaces = Workspaces()
    app = page.build_app(workspaces)
    app.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        prevent_thread_lock=True,
        theme=page.theme(),
        css=page.css(),
        head=page.head(),
        footer_links=["api", "settings"],
        mcp_server=options.mcp and importlib.util.find_spec("mcp") is not None,
        ssr_mode=False,
        show_error=True,
        max_file_size=limits.upload_bytes,
    )
    page.warm_up()
    workspaces.keep_sweeping(uploads=uploads)
    app.block_thread()


if __name__ == "__main__":
    main()
