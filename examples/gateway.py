r"""A gateway: sensors send lines by TCP, and all of them share one gRPC stream to the server.

python -m server &
python examples/gateway.py localhost:50051 recall --listen 127.0.0.1:9000
printf 'boiler,0.8,1,0\npump,0.3,1,0\nboiler,0,0,1\n' | nc -q 1 127.0.0.1 9000

A line is a sensor's name and the numbers of one step. The answer is the name, the number of the step and the outputs,
or `NAME,error,SENTENCE`. A sensor may come back over another connection: its sequence goes on. When the server is
restarted, all sequences go on; sensors only wait.
"""

import argparse
import asyncio
from collections.abc import Callable
from contextlib import suppress

import tidegate

Write = Callable[[str], None]
WAITING = 16  # lines of one sensor that wait; beyond, its connection is not read


class Sensor:
    """One sensor's sequence: takes lines in their order, one at a time."""

    def __init__(self, name: str, client: tidegate.AsyncClient, model: str) -> None:
        self._name = name
        self._client = client
        self._model = model
        self._lines: asyncio.Queue[tuple[list[str], Write]] = asyncio.Queue(WAITING)

    async def take(self, fields: list[str], write: Write) -> None:
        await self._lines.put((fields, write))

    async def run(self) -> None:
        """Never ends by itself. A sequence that the server has lost is opened anew, and the sensor is told."""
        while True:
            with suppress(tidegate.SequenceLost):
                async with self._client.sequence(self._model, trace=False) as sequence:
                    while True:
                        await self._step(sequence, *await self._lines.get())

    async def _step(self, sequence: tidegate.AsyncSequence, fields: list[str], write: Write) -> None:
        try:
            answer = await sequence.step([float(field) for field in fields])
        except (tidegate.TidegateError, ValueError) as error:
            write(f"{self._name},error,{error}\n")
            if isinstance(error, tidegate.SequenceLost):
                raise
        else:
            numbers = ",".join(f"{number:.6g}" for number in answer.output.ravel())
            write(f"{self._name},{answer.step},{numbers}\n")


class Gateway:
    """All sensors, whichever connections they use."""

    def __init__(self, client: tidegate.AsyncClient, model: str, tasks: asyncio.TaskGroup) -> None:
        self._client = client
        self._model = model
        self._tasks = tasks
        self._sensors: dict[str, Sensor] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads one connection to its end."""

        def write(line: str) -> None:
            if not writer.is_closing():
                writer.write(line.encode())

        async for line in reader:
            name, *fields = line.decode(errors="replace").strip().split(",")
            await self._sensor(name).take(fields, write)

    def _sensor(self, name: str) -> Sensor:
        if name not in self._sensors:
            self._sensors[name] = sensor = Sensor(name, self._client, self._model)
            self._tasks.create_task(sensor.run())
        return self._sensors[name]


async def main() -> None:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="HOST:PORT of the server, or https://HOST:PORT")
    parser.add_argument("model")
    parser.add_argument("--listen", default="127.0.0.1:9000", help="where sensors connect to")
    given = parser.parse_args()
    host, _, port = given.listen.rpartition(":")
    async with tidegate.AsyncClient(given.address) as client, asyncio.TaskGroup() as tasks:
        gateway = Gateway(client, given.model, tasks)
        server = await asyncio.start_server(gateway.serve, host, int(port))
        print("listening on {}:{}".format(*server.sockets[0].getsockname()[:2]), flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
