"""What a response is worth: functions and reward models, each with what it refuses."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.config.ppo import FunctionReward, ModelReward
from llmtrain.config.reward import ScoreFunction
from llmtrain.errors import CheckpointError, ConfigError, DataError
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.models import save_model, start_reward_model
from llmtrain.posttraining.rewards import OFFSET, Answered, RewardModel, Rewards, load_function, score_sequences
from llmtrain.tokenizer.chat_template import CHAT_TEMPLATE
from tests.posttraining.conftest import build_config

CPU = torch.device("cpu")
ANSWERED = Answered(["one", "two", "three"], ["a", "bb", "ccc"], [[1, 20, 21], [1, 22, 23, 24, 25], [1, 30]])
# float32 sums in another order.
ROUNDING = 1e-5


def write(folder: Path, body: str, name: str = "score.py") -> Path:
    file = folder / name
    file.write_text(f"def score(prompts, responses):\n    {body}\n")
    return file


def test_a_function_scores_each_response(tmp_path: Path) -> None:
    file = write(tmp_path, "return [len(p) + 10 * len(r) for p, r in zip(prompts, responses)]")
    scores = load_function(ScoreFunction(file=file), "ppo.gold")(ANSWERED)
    assert scores.dtype == torch.float64
    assert scores.tolist() == [13.0, 23.0, 35.0]


def test_a_function_may_give_numpy_numbers_and_may_not_change_what_it_is_given(tmp_path: Path) -> None:
    body = "import numpy; responses.clear(); prompts[0] = ''; return numpy.array([1.5, 2.5, 3.5])"
    answered = Answered(["a", "b", "c"], ["d", "e", "f"], [[1], [2], [3]])
    scores = load_function(ScoreFunction(file=write(tmp_path, body)), "k")(answered)
    assert scores.tolist() == [1.5, 2.5, 3.5]
    assert answered == Answered(["a", "b", "c"], ["d", "e", "f"], [[1], [2], [3]])


def test_a_missing_file_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_function(ScoreFunction(file=tmp_path / "none.py"), "ppo.gold")
    assert str(caught.value) == f"ppo.gold.file = {tmp_path}/none.py: no such file."


@pytest.mark.parametrize("text", ["", "score = 3\n"])
def test_a_missing_function_is_refused_by_its_key(text: str, tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_function(ScoreFunction(file=file), "ppo.gold")
    assert str(caught.value) == f"ppo.gold.function = 'score': {file} has no such function."


def test_a_file_that_cannot_be_imported_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    file.write_text("import nothing_of_this_name\n")
    with pytest.raises(ConfigError) as caught:
        load_function(ScoreFunction(file=file), "ppo.gold")
    problem = "ModuleNotFoundError(\"No module named 'nothing_of_this_name'\")"
    assert str(caught.value) == f"ppo.gold.file = {file}: cannot be imported: {problem}"


def test_a_file_may_have_dataclasses_and_import_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("FACTOR = 3\n")
    file = tmp_path / "score.py"
    file.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from beside_it import FACTOR\n"
        "@dataclass\n"
        "class Scale:\n"
        "    factor: int = FACTOR\n"
        "def score(prompts, responses):\n"
        "    return [Scale().factor * len(r) for r in responses]\n"
    )
    before = list(sys.path)
    assert load_function(ScoreFunction(file=file), "k")(ANSWERED).tolist() == [3.0, 6.0, 9.0]
    assert sys.path == before


def test_files_of_the_same_name_are_kept_apart(tmp_path: Path) -> None:
    functions = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = write(folder, f"return [VALUE] * len(prompts)  # {number}")
        file.write_text(f"VALUE = {number}\n" + file.read_text())
        functions.append(load_function(ScoreFunction(file=file), "k"))
    assert [function(ANSWERED).tolist()[0] for function in functions] == [1.0, 2.0]


@pytest.mark.parametrize("name", ["score", "score.txt"])
def test_the_name_of_a_file_may_end_in_anything(name: str, tmp_path: Path) -> None:
    file = write(tmp_path, "return [1.0] * len(prompts)", name)
    assert load_function(ScoreFunction(file=file), "k")(ANSWERED).tolist() == [1.0, 1.0, 1.0]


def test_a_file_that_is_no_python_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "score"
    file.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match=f"^k.file = {file}: cannot be imported: "):
        load_function(ScoreFunction(file=file), "k")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "return [1 / 0]",
            "raised ZeroDivisionError('division by zero') at line 2 for 3 responses. Mend the function.",
        ),
        (
            "import json; json.loads('{')",
            "raised JSONDecodeError('Expecting property name enclosed in double quotes: line 1 column 2 (char 1)') "
            "at line 2 for 3 responses. Mend the function.",
        ),
        ("return None", "gave None. Give a list of numbers, one for each response."),
        ("return [1.0]", "gave 1 scores for 3 responses. Give one for each."),
        ("return [1.0, float('nan'), 2]", "gave nan for 'bb' to 'two'. Give finite numbers."),
        ("return [1.0, 1.0, float('inf')]", "gave inf for 'ccc' to 'three'. Give finite numbers."),
        ("return [True, False, True]", "gave True for 'a' to 'one'. Give finite numbers."),
        ("return ['1', 2, 3]", "gave '1' for 'a' to 'one'. Give finite numbers."),
    ],
)
def test_a_function_that_gives_no_numbers_is_refused(body: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, body)
    score = load_function(ScoreFunction(file=file), "k")
    with pytest.raises(DataError) as caught:
        score(ANSWERED)
    assert str(caught.value) == f"{file}:score: {message}"


@pytest.fixture(scope="module")
def make_reward_folder(
    model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Saves a reward model made from a language model, with an offset and perhaps a broken head."""

    def make(family: str, offset: float = 0.0, head: float | None = None) -> Path:
        model = start_reward_model(model_folders[family], chat.pad_id, seed=5)
        model.config.update({OFFSET: offset})
        if head is not None:
            torch.nn.init.constant_(model.score.weight, head)
        folder = tmp_path_factory.mktemp("reward") / "model"
        save_model(model, model.state_dict(), chat, folder, {"stage": "reward"})
        return folder

    return make


def test_a_score_is_that_of_transformers_whatever_is_beside_it(
    family: str, make_reward_folder: Callable[..., Path], chat: ChatTokenizer
) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = make_reward_folder(family)
    stock = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = torch.cat([stock(input_ids=torch.tensor([ids])).logits[:, 0] for ids in ANSWERED.ids]).double()
    for batch_size in (1, 2, 8):
        scores = score_sequences(stock, ANSWERED.ids, chat.pad_id, batch_size)
        torch.testing.assert_close(scores, expected, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(RewardModel(folder, chat, CPU, 2)(ANSWERED), expected, rtol=0, atol=ROUNDING)


def test_the_score_is_at_the_last_token_even_where_that_is_padding(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer
) -> None:
    model = RewardModel(make_reward_folder("llama"), chat, CPU, 2)
    ends = [[1, 20, chat.pad_id], [1, 20]]
    scores = model(Answered(["", ""], ["", ""], ends))
    assert scores[0] != scores[1]
    assert model(Answered([""], [""], ends[:1]))[0] == pytest.approx(float(scores[0]), abs=ROUNDING)


def test_the_offset_is_taken_off(make_reward_folder: Callable[..., Path], chat: ChatTokenizer) -> None:
    plain = RewardModel(make_reward_folder("llama"), chat, CPU, 2)(ANSWERED)
    shifted = RewardModel(make_reward_folder("llama", offset=1.25), chat, CPU, 2)
    assert shifted.offset == 1.25
    torch.testing.assert_close(shifted(ANSWERED), plain - 1.25)


def test_a_reward_model_that_gives_no_numbers_is_refused(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer
) -> None:
    folder = make_reward_folder("llama", head=math.nan)
    with pytest.raises(DataError) as caught:
        RewardModel(folder, chat, CPU, 2)(ANSWERED)
    assert str(caught.value) == (
        f"{folder}: scores 'a' with nan. The reward model is broken; train it with a lower learning rate."
    )


def test_a_reward_model_with_another_tokenizer_is_refused(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer, tokenizer_files: Path, tmp_path: Path
) -> None:
    folder = make_reward_folder("llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (tokenizer_files / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("<|fim_prefix|>", "<|another|>"), encoding="utf-8")
    ours = load_chat_tokenizer(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        RewardModel(folder, ours, CPU, 2)
    message = str(caught.value)
    assert message.startswith(f"{folder}: another tokenizer than {tmp_path}: token '<|")
    assert message.endswith("Train the reward model from the same model, or give the reward as a function.")
    place = chat.tokenizer.get_vocab()["<|fim_prefix|>"]
    assert f"is {place} there, None here" in message or f"is None there, {place} here" in message


def test_a_reward_model_with_another_template_is_refused(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer, tokenizer_files: Path, tmp_path: Path
) -> None:
    folder = make_reward_folder("llama")
    template = CHAT_TEMPLATE.replace("message['content'] + '<|end|>'", "message['content'] + '.<|end|>'")
    chat.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(template)
    ours = load_chat_tokenizer(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        RewardModel(folder, ours, CPU, 2)
    message = str(caught.value)
    assert message.startswith(
        f"{folder}: its chat template or tokenizer gives a conversation other ids than {tmp_path}: at "
    )
    assert "['<|end|>'" in message.partition(" there, ")[0]
    assert "['.', '<|end|>'" in message.partition(" there, ")[2]


def test_a_reward_model_with_other_merges_is_refused(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    folder = make_reward_folder("llama")
    chat.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["merges"] = content["model"]["merges"][:20]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="its chat template or tokenizer gives a conversation other ids than"):
        RewardModel(folder, load_chat_tokenizer(tmp_path), CPU, 2)


def test_terms_are_scored_by_name_and_summed_with_their_weights(
    make_reward_folder: Callable[..., Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    folder = make_reward_folder("llama")
    terms: dict[str, Any] = {
        "model": ModelReward(kind="model", weight=2.0),
        "short": FunctionReward(
            kind="function", file=write(tmp_path, "return [-len(r) for r in responses]"), weight=0.5
        ),
        "off": FunctionReward(kind="function", file=write(tmp_path, "return [9] * len(prompts)", "off.py"), weight=0.0),
    }
    rewards = Rewards(terms, {"model": folder}, chat, CPU, 2)
    scores = rewards.score(ANSWERED)
    assert list(scores) == ["model", "short", "off"]
    expected = 2 * RewardModel(folder, chat, CPU, 2)(ANSWERED) - 0.5 * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(rewards.add(scores), expected.double())


def test_a_term_that_is_broken_is_told_by_its_key(chat: ChatTokenizer, tmp_path: Path) -> None:
    terms = {"short": FunctionReward(kind="function", file=tmp_path / "none.py")}
    with pytest.raises(ConfigError, match=r"^ppo.rewards.short.file = .*none.py: no such file.$"):
        Rewards(terms, {}, chat, CPU, 2)


def test_a_reward_model_is_built_like_its_language_model(make_reward_folder: Callable[..., Path]) -> None:
    from transformers import AutoConfig

    for family in ("llama", "gpt2"):
        config = AutoConfig.from_pretrained(make_reward_folder(family))
        expected = build_config(family, config.vocab_size)
        assert (config.model_type, config.hidden_size) == (expected.model_type, expected.hidden_size)
        assert config.num_labels == 1
