from llmtrain.tracking import metric_names as names
from llmtrain.tracking.planned import NUMBERS


def test_every_name_has_exactly_two_levels_and_is_unique() -> None:
    constants = [value for name, value in vars(names).items() if name.isupper()]
    made = [function("web") for function in (names.train_loss_of, names.epoch_of, names.validation_loss_of)]
    made += [names.plan_of(name, kind) for name in NUMBERS for kind in ("planned", "measured", "error")]
    assert len(set(constants + made)) == len(constants + made)
    assert all(value.count("/") == 1 and " " not in value for value in constants + made)
