"""FastAPI with a database: notes in SQLite.

python examples/asgi_notes.py [HOST:PORT [FILE]]     then open http://127.0.0.1:7007/docs

or: curl -d '{"text": "milk"}' -H 'Content-Type: application/json' http://127.0.0.1:7007/notes
On several processes: weald serve asgi_notes:app --app-dir examples
"""

import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, Field

FILE = sys.argv[2] if __name__ == "__main__" and len(sys.argv) > 2 else "/tmp/weald-notes.sqlite"


class Text(BaseModel):
    text: Annotated[str, Field(min_length=1, max_length=1000)]


class Note(Text):
    id: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with closing(sqlite3.connect(FILE)) as db, db:
        db.execute("create table if not exists notes (id integer primary key, text not null)")
    yield


# FastAPI calls functions that are not coroutines in a pool of threads, so a slow disk does not block the loop.
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(FILE, check_same_thread=False)) as db, db:
        yield db


Database = Annotated[sqlite3.Connection, Depends(database, scope="function")]
app = FastAPI(title="Notes", lifespan=lifespan)


@app.get("/notes")
def all_notes(db: Database) -> list[Note]:
    return [Note(id=number, text=text) for number, text in db.execute("select id, text from notes order by id")]


@app.post("/notes", status_code=201)
def add_note(note: Text, db: Database) -> Note:
    number = db.execute("insert into notes (text) values (?)", (note.text,)).lastrowid
    assert number is not None
    return Note(id=number, text=note.text)


@app.delete("/notes/{number}", status_code=204)
def delete_note(number: int, db: Database) -> None:
    if not db.execute("delete from notes where id = ?", (number,)).rowcount:
        raise HTTPException(404, "there is no such note")


if __name__ == "__main__":
    from weald.asgi import ASGIServer

    server = ASGIServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7007", app, log=None)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
