"""A small machine with a memory of its own: every order in which the accesses of a few programs may come true.

The programs are the real ones, `ferrox/lanes/ring.py` and `tape.py`, interpreted, on memory whose words are read and
written one by one.  The one trick: what a program does next depends on nothing but what its loads have given so far.
So it needs no thread that stops at each access; it is run again from its beginning with one answer more, once for each
sequence of answers, and where it stands is the number of that sequence.

A store waits in a buffer of its side until it comes true.  On an *ordered* machine the oldest store does first, which
is total store order, the promise of x86-64; on a weak one any of them may, but for two to the same word.  The words of
one copy are loaded, and come true, in any order on either: nothing is promised of the inside of a memcpy.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final

LANES: Final = Path(__file__).parents[2] / "ferrox" / "lanes"
SLOTS: Final = 1 << 20
"""The address of the first word behind the page."""

Program = Callable[["Side"], object]


class Paused(BaseException):
    """The end of what a program can do with the answers that it has."""


class Side:
    """What a program sees of the memory: the answers that it was given, and then a pause."""

    def __init__(self, answers: tuple[Any, ...], capacity: int, size: int) -> None:
        self.answers, self.asked, self.capacity, self.size = answers, 0, capacity, size
        self.wants: tuple[str, Any] = ("done", None)

    def ask(self, what: str, words: Any) -> Any:
        """Return the next answer."""
        if self.asked == len(self.answers):
            self.wants = (what, words)
            raise Paused
        self.asked += 1
        return self.answers[self.asked - 1]

    @property
    def shared(self) -> Any:
        """What `Ring` and `Tape` take for shared memory."""
        return SimpleNamespace(words=Words(self), bytes=Slots(self), expect=lambda *_: self.capacity)


class Words:
    """The words of the page."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def __getitem__(self, place: int) -> int:
        value: int = self.side.ask("load", (place,))[0]
        return value

    def __setitem__(self, place: int, value: int) -> None:
        self.side.ask("store", ((place, value),))


class Slots:
    """The bytes behind the page, as the words that they are copied by."""

    def __init__(self, side: Side) -> None:
        self.side = side

    def places(self, part: slice) -> range:
        start, stop, _ = part.indices(self.side.capacity * self.side.size)
        return range(SLOTS + start // 8, SLOTS + stop // 8)

    def __getitem__(self, part: slice) -> bytes:
        return b"".join(word.to_bytes(8, "little") for word in self.side.ask("load", tuple(self.places(part))))

    def __setitem__(self, part: slice, data: Any) -> None:
        words = memoryview(bytes(data)).cast("q")
        self.side.ask("store", tuple(zip(self.places(part), words, strict=True)))


def lane(name: str, change: Callable[[str], str] = str, **constants: int) -> Any:
    """Return a module of `ferrox.lanes` as it is written, with other constants, or with a change to its text."""
    module = ModuleType(name)
    source = (LANES / f"{name}.py").read_text()
    exec(compile(change(source), name, "exec"), module.__dict__)
    for constant, value in constants.items():
        assert hasattr(module, constant)
        setattr(module, constant, value)
    return module


class Machine:
    """A few programs on one memory; `explore` goes through all that can happen."""

    def __init__(
        self, programs: list[Program], capacity: int, size: int, *, ordered: bool, begun: dict[int, int] | None = None
    ) -> None:
        """Take programs, how many slots of what size they share, and what the memory holds but zeros."""
        self.begun = frozenset((begun or {}).items())
        self.programs, self.capacity, self.size, self.ordered = programs, capacity, size, ordered
        self.answers: list[list[tuple[Any, ...]]] = [[] for _ in programs]
        self.wants: list[list[tuple[str, Any]]] = [[] for _ in programs]
        self.after: list[dict[tuple[int, Any], int]] = [{} for _ in programs]
        self.ends: set[tuple[Any, ...]] = set()
        """What the programs returned, for every way in which they ended."""

    def place(self, program: int, before: int, answer: Any) -> int:
        """Return where a program stands behind one answer more."""
        known = self.after[program].get((before, answer))
        if known is not None:
            return known
        answers = () if before < 0 else (*self.answers[program][before], answer)
        side = Side(answers, self.capacity, self.size)
        try:
            wants = ("done", self.programs[program](side))
        except Paused:
            wants = side.wants
        number = self.after[program][before, answer] = len(self.answers[program])
        self.answers[program].append(answers)
        self.wants[program].append(wants)
        return number

    def settled(self, program: int, place: int, buffer: tuple[Any, ...]) -> tuple[int, tuple[Any, ...], Any]:
        """Let a program store as long as it stores: nobody sees that before it comes true."""
        while self.wants[program][place][0] == "store":
            buffer = (*buffer, self.wants[program][place][1])
            place = self.place(program, place, None)
        what, words = self.wants[program][place]
        return place, buffer, (None,) * len(words) if what == "load" else ()

    def explore(self, limit: int) -> int:
        """Go through the states, at most `limit`, each once; return how many they were."""
        sides = tuple(self.settled(number, self.place(number, -1, None), ()) for number in range(len(self.programs)))
        begin = (sides, self.begun)
        seen, waiting = {begin}, [begin]
        while waiting and len(seen) < limit:
            sides, memory = waiting.pop()
            values = dict(memory)
            done = True
            for number, side in enumerate(sides):
                place, buffer, loaded = side
                steps: list[tuple[Any, Any]] = []
                what, words = self.wants[number][place]
                if what == "load":
                    done = False
                    for index, word in enumerate(words):
                        if loaded[index] is None:
                            value = forwarded(buffer, word, values)
                            answer = (*loaded[:index], value, *loaded[index + 1 :])
                            if None in answer:
                                steps.append(((place, buffer, answer), memory))
                            else:
                                following = self.place(number, place, answer)
                                steps.append((self.settled(number, following, buffer), memory))
                for index, store in self.drains(buffer):
                    done = False
                    rest = tuple(one for one in buffer[index] if one != store)
                    left = (
                        (*buffer[:index], rest, *buffer[index + 1 :]) if rest else buffer[:index] + buffer[index + 1 :]
                    )
                    now = frozenset({**values, store[0]: store[1]}.items())
                    steps.append(((place, left, loaded), now))
                for changed, now in steps:
                    state = ((*sides[:number], changed, *sides[number + 1 :]), now)
                    if state not in seen:
                        seen.add(state)
                        waiting.append(state)
            if done:
                self.ends.add(tuple(self.wants[number][side[0]][1] for number, side in enumerate(sides)))
        return len(seen)

    def drains(self, buffer: tuple[Any, ...]) -> list[tuple[int, tuple[int, int]]]:
        """Return which stores may come true now."""
        if self.ordered:
            return [(0, store) for store in buffer[0]] if buffer else []
        may, before = [], set[int]()
        for index, stores in enumerate(buffer):
            may += [(index, store) for store in stores if store[0] not in before]
            before.update(word for word, _ in stores)
        return may


def forwarded(buffer: tuple[Any, ...], word: int, values: dict[int, int]) -> int:
    """Return what a side sees of a word: its own last store, or the memory's."""
    for stores in reversed(buffer):
        for place, value in stores:
            if place == word:
                found: int = value
                return found
    return values.get(word, 0)
