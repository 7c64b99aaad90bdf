"""What the commands share: the console, errors with an exit status, and lists out of one word."""

from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape


def console() -> Console:
    """Standard output, without colours for numbers."""
    return Console(highlight=False)


def fail(message: object, code: int) -> NoReturn:
    """Print an error and leave with this exit status."""
    Console(stderr=True, highlight=False).print(f"[red]error[/]: {escape(str(message))}", soft_wrap=True)
    raise typer.Exit(code)


def listed(text: str) -> list[str]:
    """Words between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[int]:
    """Whole numbers between commas; anything else ends the command."""
    parts = listed(text)
    for index, part in enumerate(parts):
        if not part.isdecimal():
            fail(f"--seeds: entry {index} is {part!r}; give whole numbers separated by commas, such as 0,1,2", 2)
    return [int(part) for part in parts]
