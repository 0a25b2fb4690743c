"""A program that is supervised in tests: it works, or it ends, as its arguments say."""

import subprocess
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sign, child, *words = sys.argv[1:]
    if "fails" in words:
        print("I cannot work\nthe cause of it", flush=True)
        sys.exit(3)
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(child).write_text(str(helper.pid))
    while True:
        Path(sign).touch()
        time.sleep(0.02)
