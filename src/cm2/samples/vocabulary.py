"""A vocabulary of word pieces learned from texts, the same whatever their order and the process.

WordPiece (Schuster and Nakajima 2012; Devlin et al. 2019) with the pieces of byte-pair encoding
(Sennrich, Haddow and Birch 2016): the commonest pair of neighbours becomes a piece, repeatedly.
The trainer of ``tokenizers`` breaks ties by numbers that follow a hash map, which is another one in
each process; here ties go by the alphabet. Rare words name people and places: a piece must stand in
a word that several patients have.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from cm2.core.errors import InputError
from cm2.core.pace import told
from cm2.samples import tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["OPTIONS", "learn"]

SIZE = 8000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PATIENTS = 5
"""A piece must be of a word that at least so many patients have."""

INSIDE = "##"
"""In front of a piece that does not begin a word."""

LONGEST = 100
"""Characters of a word; a longer one is unknown."""

OPTIONS = {"algorithm": 1, "size": SIZE, "patients": PATIENTS}
"""On what a vocabulary depends beside the texts; ``algorithm`` counts changes of this module."""


def learn(texts: Sequence[str], patients: Shaped[ndarray, " text"], size: int = SIZE) -> Tokenizer:
    """Learns a WordPiece vocabulary, lower case.

    Args:
        texts: Of training rows only.
        patients: Whose each text is.
        size: Largest number of pieces.

    Raises:
        InputError: If there are texts, but none of their words is of enough patients.
    """
    package = tokens.package()
    normalizer = package.normalizers.BertNormalizer(lowercase=True)
    splitter = package.pre_tokenizers.BertPreTokenizer()

    def words(text: str) -> list[str]:
        found = splitter.pre_tokenize_str(normalizer.normalize_str(text))
        return [word for word, _ in found if len(word) <= LONGEST]

    pieces = dict.fromkeys([*SPECIAL, *_pieces(texts, np.asarray(patients), words, size)])
    if len(texts) and len(pieces) == len(SPECIAL):
        raise InputError(
            f"a vocabulary is learned from words that {PATIENTS} training patients have, but no"
            f" word of these {len(texts)} texts is of so many; name a tokenizer"
        )
    numbers = {piece: number for number, piece in enumerate(itertools.islice(pieces, size))}
    model = package.models.WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=LONGEST)
    tokenizer: Tokenizer = package.Tokenizer(model)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(list(SPECIAL))
    ends = [(name, numbers[name]) for name in ("[SEP]", "[CLS]")]
    tokenizer.post_processor = package.processors.BertProcessing(*ends)
    return tokenizer


def _pieces(
    texts: Sequence[str],
    patients: Shaped[ndarray, " text"],
    words: Callable[[str], list[str]],
    size: int,
) -> list[str]:
    """Single characters in the order of the alphabet, then what was joined, in its order."""
    # Texts are cut at white space first: a word is normalised once, however often it comes.
    cut = cache(words)
    times: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    alphabet: defaultdict[str, set[int]] = defaultdict(set)
    order = np.argsort(patients, kind="stable")
    grouped = itertools.groupby(order, key=lambda row: patients[row])
    counted = told(grouped, len(np.unique(patients)), "patients whose words are counted")
    for number, (_, rows) in enumerate(counted):
        raw: Counter[str] = Counter()
        for row in rows:
            raw.update(texts[row].split())
        own: Counter[str] = Counter()
        for word, count in raw.items():
            for part in cut(word):
                own[part] += count
        times.update(own)
        for part in own:
            if owners[part] < PATIENTS:  # afterwards its letters are of enough patients, too
                for letter in {*part, *_letters(part)}:
                    alphabet[letter].add(number)
            owners[part] += 1
    single = sorted(letter for letter, known in alphabet.items() if len(known) >= PATIENTS)
    common = {word: times[word] for word, count in owners.items() if count >= PATIENTS}
    return [*single, *_joined(common, size - len(SPECIAL) - len(single))]


def _letters(word: str) -> list[str]:
    return [word[0], *(INSIDE + letter for letter in word[1:])]


def _joined(words: Mapping[str, int], size: int) -> list[str]:
    """Joins the commonest pair of neighbours, ``size`` times; the first in order among equals."""
    ordered = sorted(words)
    parts = [_letters(word) for word in ordered]
    counts = [words[word] for word in ordered]
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for place, part in enumerate(parts):
        for pair in itertools.pairwise(part):
            pairs[pair] += counts[place]
            where[pair].add(place)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    found: dict[str, None] = {}
    while queue and len(found) < size:
        count, best = heapq.heappop(queue)
        if not count:
            break
        if pairs[best] != -count:
            continue  # it has been counted anew since
        joined = _union(*best)
        found[joined] = None
        change: defaultdict[tuple[str, str], int] = defaultdict(int)
        for place in where.pop(best):
            before = parts[place]
            parts[place] = _with(before, best)
            for pair in itertools.pairwise(before):
                change[pair] -= counts[place]
            for pair in itertools.pairwise(parts[place]):
                change[pair] += counts[place]
                if joined in pair:
                    where[pair].add(place)
        for pair, difference in change.items():
            if difference:
                pairs[pair] += difference
                heapq.heappush(queue, (-pairs[pair], pair))
    return list(found)


def _union(first: str, second: str) -> str:
    return first + second.removeprefix(INSIDE)


def _with(part: Sequence[str], pair: tuple[str, str]) -> list[str]:
    """The pieces of a word after a pair of them, wherever it stands, has become one."""
    out: list[str] = []
    last = False  # whether the end of ``out`` may be joined: it is no joined pair itself
    for piece in part:
        last = last and (out[-1], piece) == pair
        if last:
            out[-1] = _union(*pair)
            last = False
        else:
            out.append(piece)
            last = True
    return out
