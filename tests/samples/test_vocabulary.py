"""Learned vocabularies: the same in every order and process, and without the names of patients."""

from collections import Counter

import numpy as np
import pytest

from cm2.core.errors import InputError
from cm2.samples import tokens, vocabulary

SYLLABLES = ["ba", "car", "dor", "el", "fi", "gon", "hu", "ion", "ja", "ke", "lo", "mia", "nu"]


@pytest.fixture(scope="module")
def notes() -> tuple[list[str], np.ndarray]:
    """Made-up notes of 30 patients, of words of all frequencies."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(300)]
    often = rng.permutation(1 / np.arange(1, 301))
    texts = [" ".join(rng.choice(words, 60, p=often / often.sum())) for _ in range(120)]
    return texts, rng.permutation(np.arange(120) % 30)


def test_the_order_of_texts_changes_nothing(notes: tuple[list[str], np.ndarray]) -> None:
    texts, patients = notes
    order = np.random.default_rng(1).permutation(len(texts))
    moved = vocabulary.learn([texts[k] for k in order], patients[order] + 1000, 200)
    assert vocabulary.learn(texts, patients, 200).to_str() == moved.to_str()
    assert moved.get_vocab_size() == 200


def test_pieces_are_those_of_the_library(notes: tuple[list[str], np.ndarray]) -> None:
    """But for their numbers. The counts of pairs differ here, so that no tie is broken."""
    texts, _ = notes
    package = tokens.package()
    from tokenizers import trainers

    trainer = trainers.WordPieceTrainer(
        vocab_size=150, special_tokens=list(vocabulary.SPECIAL), show_progress=False
    )
    known = package.Tokenizer(package.models.WordPiece(unk_token="[UNK]"))
    known.pre_tokenizer = package.pre_tokenizers.BertPreTokenizer()
    # Each text is of five patients, so that none of its words is left out.
    five = texts * 5
    known.train_from_iterator(five, trainer)
    found = vocabulary.learn(five, np.repeat(np.arange(5), len(texts)), 150)
    assert set(found.get_vocab()) == set(known.get_vocab())


def test_texts_are_read_as_words_pieces_and_ends() -> None:
    texts = ["Lungs CLEAR, no é effusion.", "no lungs"] * 5
    found = vocabulary.learn(texts, np.arange(10))
    encoded = found.encode("Clear lungs; EFFUSION zzz é")
    assert encoded.tokens == ["[CLS]", "clear", "lungs", "[UNK]", "effusion", "[UNK]", "e", "[SEP]"]
    assert [found.token_to_id(name) for name in vocabulary.SPECIAL] == [0, 1, 2, 3, 4]
    assert tokens.parse(found.to_str()).get_vocab() == found.get_vocab()


def test_a_piece_needs_five_patients_not_five_notes() -> None:
    common = "the patient slept well and took a yellow kiwi"
    texts = [common] * 9 + ["seen by Kowalczyk"] * 20 + ["seen by Zimmer"] * 5 + ["of Żory"] * 4
    patients = np.concatenate([np.arange(9), np.zeros(20), np.arange(5), np.arange(4)])
    pieces = vocabulary.learn(texts, patients).get_vocab()
    assert {"patient", "zimmer", "seen"} - set(pieces) == set()
    whole = {piece.removeprefix("##") for piece in pieces if len(piece.removeprefix("##")) > 1}
    assert not [piece for piece in whole if piece in "kowalczyk" or piece in "zory"]
    # Single letters count by patients too: nobody else has a z inside a word.
    assert "##z" not in pieces
    assert "##w" in pieces


def test_a_piece_counts_each_patient_once_however_a_word_is_written() -> None:
    texts = ["Novak. NOVAK, (novak) novák novak;"] * 4 + ["other"] * 5
    assert "novak" not in vocabulary.learn(texts, np.arange(9) % 4 + np.arange(9) // 4).get_vocab()


def test_too_few_patients_are_refused_and_no_text_is_none() -> None:
    with pytest.raises(InputError, match=r"words that 5 training patients have.*these 8 texts"):
        vocabulary.learn(["lungs clear"] * 8, np.arange(8) % 4)
    assert vocabulary.learn([], np.array([])).get_vocab_size() == len(vocabulary.SPECIAL)


def test_overlapping_pairs_are_joined_from_the_left() -> None:
    joined = vocabulary._joined({"aaaa": 3, "aaab": 2}, 3)
    assert joined[0] == "##aa"
    assert Counter(joined).most_common(1)[0][1] == 1
    assert vocabulary._with(["a", "##a", "##a", "##a"], ("##a", "##a")) == ["a", "##aa", "##a"]
