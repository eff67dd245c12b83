"""The questions of ``queries`` put to raw events in DuckDB: no rollups, no index, its own quick scan.

``python duckdb_raw.py DATABASE`` answers lines of JSON: ``{"load": "FOLDER/*.parquet"}`` makes a table of the files;
``{"ask": NAME, "since": SECONDS, "until": SECONDS, "day": SECONDS, …}`` says how many ``seconds`` the answer took and
how many ``rows`` it has. Stamps are UTC without saying so. It runs in an environment of its own and imports nothing
of Mailvane.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import duckdb

LABELS = ("ip", "domain", "provider", "stream", "tenant", "segment", "campaign", "variant", "region")
BOUNCED = "sum(CASE WHEN kind = 'bounced' THEN count ELSE 0 END) AS above"
DECIDED = "sum(CASE WHEN kind IN ('sent', 'bounced', 'expired') THEN count ELSE 0 END) AS below"
COMPLAINED = "sum(CASE WHEN kind = 'complaint' THEN count ELSE 0 END)"
DELIVERED = "sum(CASE WHEN kind = 'sent' THEN count ELSE 0 END)"
WITHIN = "{0} >= epoch_ms($since::BIGINT * 1000) AND {0} < epoch_ms($until::BIGINT * 1000)"
QUESTIONS = {
    "one_ip": "SELECT time_bucket(INTERVAL 5 MINUTES, events.at) AS step, "
    f"{BOUNCED}, {DECIDED} FROM events WHERE {WITHIN.format('events.at')} AND ip = $ip GROUP BY step",
    "top_segments": f"SELECT tenant, segment, {COMPLAINED} AS above, {DELIVERED} AS below FROM events"
    f" WHERE {WITHIN.format('sent_at')} AND list_contains($providers, provider) GROUP BY tenant, segment"
    " HAVING below >= $enough ORDER BY above / below DESC LIMIT 10",
    "cohorts": "SELECT provider, date_trunc('hour', sent_at) AS step, "
    + ", ".join(
        f"{made.replace('THEN', f'AND seen_at - sent_at < INTERVAL {minutes} MINUTES THEN')} AS {side}_{minutes}"
        for side, made in (("above", COMPLAINED), ("below", DELIVERED))
        for minutes in (1, 5, 15, 60, 180, 360, 720, 1440, 2880, 5760, 10080, 10**8)
    )
    + f" FROM events WHERE {WITHIN.format('sent_at')} AND list_contains($providers, provider) GROUP BY provider, step",
    "cause": f"SELECT {', '.join(LABELS)}, {BOUNCED}, {DECIDED} FROM events"
    f" WHERE {WITHIN.format('events.at').replace('$since', '$day')} GROUP BY ALL",
}


def main() -> None:
    database = duckdb.connect(sys.argv[1], config={"memory_limit": "2GB", "threads": 2})
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(load(database, asked) if "load" in asked else answer(database, asked)), flush=True)


def load(database: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    database.execute("CREATE TABLE events AS SELECT * FROM read_parquet($files)", {"files": asked["load"]}).fetchall()
    rows = database.execute("SELECT count(*) FROM events").fetchall()[0][0]
    return {"seconds": time.perf_counter() - began, "rows": rows}


def answer(database: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> dict[str, Any]:
    sql = QUESTIONS[asked.pop("ask")]
    values = {name: value for name, value in asked.items() if f"${name}" in sql}
    began = time.perf_counter()
    table = database.sql(sql, params=values).to_arrow_table()
    return {"seconds": time.perf_counter() - began, "rows": len(table)}


if __name__ == "__main__":
    main()
