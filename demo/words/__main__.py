"""``python -m demo.words CODE``: print what a language still lacks, as a file of words in English."""

from __future__ import annotations

import json
import sys

from demo.words import LANGUAGES
from demo.words.source import missing

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in LANGUAGES:
        sys.exit(f"usage: python -m demo.words CODE, one of: {', '.join(LANGUAGES)}")
    print(json.dumps(missing(sys.argv[1]), ensure_ascii=False, indent=1))
