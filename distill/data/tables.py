"""Tables of photos and texts: CSV, TSV, JSONL and Parquet files, read row by row."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from mobileclip.errors import PocketclipError, one_line
from mobileclip.files import PathLike

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class DataError(PocketclipError):
    """A data file that is missing or malformed."""


def unreadable(path: PathLike, error: Exception) -> DataError:
    """Return the one-line error for a file that can't be read. It names the file once."""
    # safetensors repeats the path in its message.
    missing = "No such file or directory" if isinstance(error, FileNotFoundError) else None
    reason = missing or getattr(error, "strerror", None) or one_line(error)
    return DataError(f"{path}: cannot be read ({reason})")


def read_table(path: PathLike, needs: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a table as dictionaries of strings; the suffix of the file is its format.

    Empty lines of CSV and TSV files are skipped. Values of JSONL and Parquet files become strings: null and NaN are
    empty, and lists and objects stay JSON, see `parse_list`.

    Args:
        path: a .jsonl, .tsv or .parquet file; a file with any other suffix is CSV. A text file can be compressed, as
            in .jsonl.gz.
        needs: columns that every row must have.

    Raises:
        DataError: the file is missing, doesn't have the format of its suffix, or lacks a column.
    """
    path = Path(path)
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path, needs)
        return
    suffix = path.suffix.lower()
    compressed = suffix == ".gz"
    try:
        with (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig", newline="") as stream:
            if (Path(path.stem).suffix.lower() if compressed else suffix) == ".jsonl":
                yield from _json_rows(path, stream, needs)
            else:
                yield from _csv_rows(path, stream, needs)
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:  # ValueError: a name with a null byte
        raise unreadable(path, error) from error


def read_lines(path: PathLike) -> list[str]:
    r"""Read the lines of a text file.

    Only `\n`, `\r\n` and `\r` end a line. Python's `splitlines` would also split texts at U+0085 or U+2028.

    Raises:
        DataError: it is missing, or isn't UTF-8.
    """
    try:
        lines = Path(path).read_text("utf-8-sig").split("\n")
        return lines if lines[-1] else lines[:-1]
    except UnicodeDecodeError as error:
        raise not_utf8(path) from error
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def not_utf8(path: PathLike) -> DataError:
    """Return the error for a text file that isn't UTF-8; it names the first line that can't be decoded."""
    with Path(path).open("rb") as stream:
        if stream.read(2) in _UTF16:
            return DataError(f"{path}: cannot be read (it is UTF-16; save it as UTF-8)")
        stream.seek(0)
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8-sig")
            except UnicodeDecodeError:
                return DataError(f"{path}, line {number}: cannot be read (it isn't UTF-8)")
    return DataError(f"{path}: cannot be read (it isn't UTF-8)")


def parse_list(cell: str) -> list[str]:
    """Return the texts of a cell, without empty ones: a single text, or those of a JSON list.

    Half of a surrogate pair, which JSON can hold but no file and few teachers, becomes U+FFFD, as in the tokenizer.
    """
    texts: Any = [cell]
    if cell.startswith("["):
        try:
            texts = json.loads(cell)
        except (ValueError, RecursionError):  # a text that only begins like a list
            texts = [cell]
    return [text for item in texts if (text := whole_characters(as_text(item)).strip())]


def whole_characters(text: str) -> str:
    """Join surrogate pairs, and replace halves by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_text(value: Any) -> str:
    """Return a JSON value as a string: lists and objects stay JSON, and null and NaN become empty."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=lambda _: None)  # Parquet has types that JSON lacks
    return str(value)


def _json_rows(path: Path, lines: Iterable[str], needs: Sequence[str]) -> Iterator[dict[str, str]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not a JSON object") from error
        if not isinstance(fields, dict):
            raise DataError(f"{path}, line {number}: not a JSON object")
        row = {key: as_text(value) for key, value in fields.items()}
        if not row.keys() >= set(needs):
            raise DataError(f"{path}, line {number}: {_needs(needs)}")
        yield row


def _csv_rows(path: Path, stream: IO[str], needs: Sequence[str]) -> Iterator[dict[str, str]]:
    delimiter, name = ("\t", "tab") if path.suffix.lower() == ".tsv" else (",", "comma")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {number}: {_csv_reason(error)}") from error
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = cells
            if twice := next((column for column in header if column and header.count(column) > 1), None):
                raise DataError(f"{path}: two columns are named `{twice}`")
            if not set(header) >= set(needs):
                raise DataError(f"{path}: {_needs(needs)}")
            continue
        if len(cells) > len(header):
            raise DataError(
                f"{path}, line {number}: {_count(cells)}, but the header has {len(header)}; put a text that contains "
                f'a {name} in quotes: "one{delimiter} two", and write "" for a quote in it'
            )
        if len(cells) < len(header):
            raise DataError(f"{path}, line {number}: {_count(cells)}, but the header has {len(header)}")
        yield dict(zip(header, cells, strict=True))


def _csv_reason(error: csv.Error) -> str:
    """Explain an error of Python's `csv` module."""
    text = one_line(error)
    if "field larger than" in text:
        return f"a cell of more than {csv.field_size_limit():,} characters; is a closing quote missing?"
    if "unexpected end" in text or "expected after" in text:
        return 'a quoted text doesn\'t end with its closing quote; write "" for a quote in it'
    return text


def _parquet_rows(path: Path, needs: Sequence[str]) -> Iterator[dict[str, str]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: Parquet needs the package pyarrow: pip install pyarrow") from error
    try:
        with ParquetFile(path) as table:
            if not set(table.schema_arrow.names) >= set(needs):
                raise DataError(f"{path}: {_needs(needs)}")
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    yield {key: as_text(value) for key, value in row.items()}
    except (OSError, ArrowException) as error:
        raise unreadable(path, error) from error


def _count(cells: Sequence[str]) -> str:
    return "1 cell" if len(cells) == 1 else f"{len(cells)} cells"


def _needs(columns: Sequence[str]) -> str:
    return f"needs the column{'s' * (len(columns) > 1)} {' and '.join(f'`{column}`' for column in columns)}"
