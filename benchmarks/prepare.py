"""Time and memory of `cm2 prepare mimic3` on the MIMIC-III demo and on copies of it.

    python benchmarks/prepare.py --data DEMO --scratch DIR
    python benchmarks/prepare.py ... --copies 100 --engines duckdb     # 76 million chart events
    python benchmarks/prepare.py ... --copies 10 --engines duckdb spark --limit 900

A copy shifts the numbers of patients, admissions and stays, so that 100 copies are a data set of
100 times as many patients. Each measurement is one fresh process: wall time, processor time, and
the peak of the resident memory of it and its children together, sampled five times a second (the
memory of Spark is that of its Java process). Measurements are kept in DIR/measured.jsonl, and the
table has all of them; a line through the two largest of an engine gives the time of full MIMIC.
What takes longer than `--limit` is stopped, and counts no further.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.csv

TABLES = ("PATIENTS", "ADMISSIONS", "ICUSTAYS", "CHARTEVENTS", "LABEVENTS")
SHIFTS = {"SUBJECT_ID": 100_000, "HADM_ID": 1_000_000, "ICUSTAY_ID": 1_000_000}
FULL = {"MIMIC-III 1.4": 330_712_483, "MIMIC-IV 3.1": 432_997_491}
MEGABYTE = 1 << 20


def csv(path: Path) -> str:
    """Names a CSV file as a table of text in SQL, without guessing its dialect."""
    return (
        f"read_csv('{path}', all_varchar = true, header = true, delim = ',', quote = '\"',"
        " escape = '\"')"
    )


def replicate(data: Path, folder: Path, copies: int, kind: str) -> None:
    """Writes a folder of raw tables that hold so many copies of those of another."""
    if (folder / "complete").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with duckdb.connect() as database:
        database.execute("set preserve_insertion_order = false")
        for name in TABLES:
            source = csv(data / f"{name}.csv.gz")
            columns = [row[0] for row in database.execute(f"describe from {source}").fetchall()]
            numbers = ", ".join(
                f'"{column}"::bigint as "{column}"' for column in columns if column in SHIFTS
            )
            database.execute(f"create table raw as select * replace ({numbers}) from {source}")
            shifted = ", ".join(
                f'"{column}" + copy * {SHIFTS[column]} as "{column}"'
                for column in columns
                if column in SHIFTS
            )
            rows = f"select * exclude (copy) replace ({shifted}) from raw, range({{}}) as c(copy)"
            if kind == "parquet":
                database.execute(f"copy ({rows.format(copies)}) to '{folder / name}.parquet'")
            else:
                _write_csv(database, rows, copies, folder / f"{name}.csv.gz")
            database.execute("drop table raw")
    (folder / "complete").touch()


def _write_csv(database: duckdb.DuckDBPyConnection, rows: str, copies: int, path: Path) -> None:
    """Writes copy after copy, since DuckDB's own compressed CSV takes four times as long."""
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for copy in range(copies):
            table = database.sql(rows.format(f"{copy}, {copy + 1}")).to_arrow_table()
            options = pyarrow.csv.WriteOptions(include_header=copy == 0)
            pyarrow.csv.write_csv(table, stream, options)


def chart_events(data: Path) -> int:
    """Counts the rows of the large table."""
    found = duckdb.sql(f"select count(*) from {csv(data / 'CHARTEVENTS.csv.gz')}").fetchall()
    return int(found[0][0])


def resident(root: int) -> int:
    """Sums the resident memory of a process and all below it, in bytes."""
    parents, sizes = {}, {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                after = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(place.name)] = int(after[1])
            sizes[int(place.name)] = int(after[21]) * os.sysconf("SC_PAGE_SIZE")
    family = {root}
    while below := {child for child, parent in parents.items() if parent in family} - family:
        family |= below
    return sum(sizes.get(member, 0) for member in family)


def high_water(process: int) -> int:
    """Returns the greatest resident memory that a process has had, in bytes; 0 if it is gone.

    The operating system's own account, `ru_maxrss`, does not serve: it starts with the memory of
    the process that forks, which is this one and has read the raw tables.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measure(command: Sequence[str], *, cores: int, limit: float) -> dict[str, float]:
    """Runs a command in a process of its own, on so many cores, for so many seconds at most."""
    load = os.getloadavg()[0]
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    began = time.monotonic()
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, allowed)), *command],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            if time.monotonic() - began > limit:
                os.killpg(process.pid, signal.SIGKILL)
            peak[0] = max(peak[0], resident(process.pid), high_water(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - began
    done.set()
    watcher.join()
    stopped = os.waitstatus_to_exitcode(status) == -signal.SIGKILL and wall > limit
    if status != 0 and not stopped:
        raise SystemExit(f"failed: {' '.join(command)}")
    return {
        "wall": wall,
        "processor": usage.ru_utime + usage.ru_stime,
        "memory": peak[0] / MEGABYTE,
        "load": load,
        "stopped": stopped,
    }


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Writes all measurements as Markdown, and the extrapolation to full MIMIC."""
    written = [
        "| engine | input | chart events | wall, s | processor, s | memory, MB | load before |",
        "|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(lines, key=lambda line: (line["engine"], line["format"], line["events"]))
    for line in ordered:
        # What the Java process of Spark uses is not reported to the one that started it.
        processor = "–" if line["engine"] == "spark" else f"{line['processor']:.1f}"
        wall = f"{'stopped at ' if line.get('stopped') else ''}{line['wall']:.1f}"
        written.append(
            f"| {line['engine']} | {line['copies']}x, {line['format']} | {line['events']:,}"
            f" | {wall} | {processor} | {line['memory']:,.0f}"
            f" | {line['load']:.1f} |"
        )
    written.append("")
    for kind in sorted({(line["engine"], line["format"]) for line in lines}):
        done = [line for line in ordered if not line.get("stopped")]
        largest = [line for line in done if (line["engine"], line["format"]) == kind][-2:]
        if len(largest) < 2 or largest[0]["events"] == largest[1]["events"]:
            continue
        (x0, y0), (x1, y1) = [(line["events"], line["wall"]) for line in largest]
        slope = (y1 - y0) / (x1 - x0)
        times = ", ".join(
            f"{name} ({rows / 1e6:.0f} million) {(y1 + slope * (rows - x1)) / 60:.0f} min"
            for name, rows in FULL.items()
        )
        written.append(f"{kind[0]}, {kind[1]}: {1e6 * slope:.1f} s a million chart events; {times}")
    return "\n".join(written)


def main() -> None:
    """Measures what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the MIMIC-III demo")
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the copies")
    parser.add_argument("--copies", type=int, nargs="*", default=[1, 10])
    parser.add_argument("--engines", nargs="+", default=["duckdb"], choices=["duckdb", "spark"])
    parser.add_argument("--format", default="csv.gz", choices=["csv.gz", "parquet"])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one run")
    parser.add_argument("--memory", default="3GB", help="limit of the engine")
    arguments = parser.parse_args()
    kept = arguments.scratch / "measured.jsonl"
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for copies in arguments.copies:
        raw = arguments.scratch / f"{copies}x-{arguments.format}"
        replicate(arguments.data, raw, copies, arguments.format)
        events = copies * chart_events(arguments.data)
        for engine in arguments.engines:
            out = arguments.scratch / "out"
            shutil.rmtree(out, ignore_errors=True)
            command = [sys.executable, "-m", "cm2.cli", "prepare", "mimic3", f"--raw={raw}"]
            command += [f"--out={out}", f"--engine={engine}", f"--threads={arguments.cores}"]
            command += [f"--memory-limit={arguments.memory}"]
            line = {
                "engine": engine,
                "format": arguments.format,
                "copies": copies,
                "events": events,
                **measure(command, cores=arguments.cores, limit=arguments.limit),
            }
            with kept.open("a") as file:
                file.write(json.dumps(line) + "\n")
    print(table([json.loads(line) for line in kept.read_text().splitlines()]))


if __name__ == "__main__":
    main()
