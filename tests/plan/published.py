"""Rows of published tables as workloads, for tests of the plan. A100 80 GB, 2,048 tokens, 51,200 rows of vocabulary."""

import dataclasses
from dataclasses import dataclass

from llmtrain.plan.flops import Recompute
from llmtrain.plan.model_shape import ModelShape
from llmtrain.plan.workload import Workload


def make_shape(heads: int, hidden: int, layers: int, vocab_size: int = 51_200) -> ModelShape:
    """A GPT of the Megatron papers."""
    return ModelShape(
        family="gpt2",
        num_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=hidden // heads,
        intermediate_size=4 * hidden,
        vocab_size=vocab_size,
        padded_vocab_size=vocab_size,
        max_sequence_length=2048,
        tie_word_embeddings=True,
        norm_epsilon=1e-5,
        rope_theta=0.0,
        initializer_range=0.02,
    )


def make_workload(
    shape: ModelShape,
    layout: tuple[int, int, int],
    batch: tuple[int, int],
    recompute: Recompute,
    sequence_parallel: bool,
    virtual_stages: int = 1,
    reduce_bytes: int = 4,
) -> Workload:
    """A step of Megatron: layout (tensor, pipeline, devices), batch (global, micro), equal stages."""
    tensor, pipeline, devices = layout
    data = devices // tensor // pipeline
    per_stage = shape.num_layers // pipeline
    return Workload(
        shape=shape,
        sequence_length=2048,
        micro_batch_size=batch[1],
        gradient_accumulation_steps=batch[0] // batch[1] // data,
        data_parallel_size=data,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        stage_borders=(0, *(1 + per_stage * stage for stage in range(1, pipeline)), shape.num_layers + 2),
        zero_stage=0,
        recompute=recompute,
        sequence_parallel=sequence_parallel,
        reduce_bytes=reduce_bytes,
        overlap_communication=False,
        virtual_stages=virtual_stages,
        software="megatron",
    )


@dataclass(frozen=True)
class KorthikantiRow:
    """Korthikanti et al. 2022, "Reducing Activation Recomputation", tables 3 and 5, figures 1 and 7."""

    name: str
    shape: ModelShape
    layout: tuple[int, int, int]
    batch: tuple[int, int]
    virtual_stages: int
    full_seconds: float
    present_seconds: float
    mfu: float
    hfu: float
    none_gib: float
    present_gib: float
    figure_7: tuple[float, float, float, float]
    """Percent of the tensor-parallel baseline: sequence-parallel, selective, both, full recompute."""

    def make(self, recompute: Recompute, sequence_parallel: bool) -> Workload:
        """The row with either means of saving activations."""
        return make_workload(self.shape, self.layout, self.batch, recompute, sequence_parallel, self.virtual_stages)


KORTHIKANTI = (
    KorthikantiRow(
        "22B", make_shape(64, 6144, 48), (8, 1, 8), (4, 4), 1, 1.42, 1.10, 41.5, 43.7, 59.25, 9.5625,
        (66.84, 49.42, 16.18, 7.64),
    ),
    KorthikantiRow(
        "175B", make_shape(96, 12288, 96), (8, 8, 64), (64, 1), 3, 18.13, 13.75, 51.4, 52.8, 66.84, 12.35,
        (62.04, 56.53, 18.49, 8.71),
    ),
    KorthikantiRow(
        "530B", make_shape(128, 20480, 105), (8, 35, 280), (280, 1), 3, 49.05, 37.83, 56.0, 57.0, 114.02, 23.08,
        (58.31, 62.04, 20.27, 9.42),
    ),
    KorthikantiRow(
        "1T", make_shape(160, 25600, 128), (8, 64, 512), (512, 1), 1, 94.42, 71.49, 56.3, 57.0, 131.25, 26.56,
        (58.31, 62.04, 20.27, 9.42),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class WeakScalingRow:
    """Narayanan et al. 2021, table 1; micro-batch sizes and stages from sc21/run_table_1.sh of Megatron-LM."""

    billions: float
    shape: ModelShape
    layout: tuple[int, int, int]
    batch: tuple[int, int]
    virtual_stages: int
    teraflops: float

    @property
    def workload(self) -> Workload:
        """Its step: every block recomputed, hidden states whole on every rank, gradients summed in 16 bits."""
        return make_workload(self.shape, self.layout, self.batch, "full", False, self.virtual_stages, reduce_bytes=2)


WEAK_SCALING = (
    WeakScalingRow(1.7, make_shape(24, 2304, 24), (1, 1, 32), (512, 16), 1, 137),
    WeakScalingRow(3.6, make_shape(32, 3072, 30), (2, 1, 64), (512, 16), 1, 138),
    WeakScalingRow(7.5, make_shape(32, 4096, 36), (4, 1, 128), (512, 16), 1, 142),
    WeakScalingRow(18.4, make_shape(48, 6144, 40), (8, 1, 256), (1024, 8), 1, 135),
    WeakScalingRow(39.1, make_shape(64, 8192, 48), (8, 2, 512), (1536, 4), 1, 138),
    WeakScalingRow(76.1, make_shape(80, 10240, 60), (8, 4, 1024), (1792, 2), 3, 140),
    WeakScalingRow(145.6, make_shape(96, 12288, 80), (8, 8, 1536), (2304, 2), 2, 148),
    WeakScalingRow(310.1, make_shape(128, 16384, 96), (8, 16, 1920), (2160, 1), 2, 155),
    WeakScalingRow(529.6, make_shape(128, 20480, 105), (8, 35, 2520), (2520, 1), 3, 163),
    WeakScalingRow(1008.0, make_shape(160, 25600, 128), (8, 64, 3072), (3072, 1), 1, 163),
)


@dataclass(frozen=True)
class MptRow:
    """A row of scripts/train/benchmarking/README.md of mosaicml/llm-foundry: MPT under FSDP, fused attention, autocast.

    Every rank keeps a share of weights, gradients and states, as with ZeRO-3; nothing is compiled.
    """

    size: str
    sequence_length: int
    devices: int
    micro_batch_size: int
    micro_batches: int
    is_recomputed: bool
    tokens_per_second_and_device: int

    @property
    def workload(self) -> Workload:
        """Its step."""
        layers, hidden, heads = MPT_SIZES[self.size]
        shape = make_shape(heads, hidden, layers, 50_368)
        return Workload(
            shape=dataclasses.replace(shape, max_sequence_length=self.sequence_length),
            sequence_length=self.sequence_length,
            micro_batch_size=self.micro_batch_size,
            gradient_accumulation_steps=self.micro_batches,
            data_parallel_size=self.devices,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            stage_borders=(0, layers + 2),
            zero_stage=3,
            recompute="full" if self.is_recomputed else "none",
            sequence_parallel=False,
            reduce_bytes=2,
            compiled=False,
        )

    @property
    def seconds(self) -> float:
        """Of a step."""
        tokens = self.micro_batch_size * self.micro_batches * self.sequence_length
        return tokens / self.tokens_per_second_and_device


MPT_SIZES = {
    "125m": (12, 768, 12),
    "350m": (24, 1024, 16),
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}
MPT_A100 = (
    MptRow("125m", 2048, 8, 40, 2, False, 142_830),
    MptRow("350m", 2048, 8, 32, 2, False, 58_782),
    MptRow("760m", 2048, 8, 24, 2, False, 32_434),
    MptRow("1b", 2048, 8, 14, 4, False, 20_513),
    MptRow("3b", 2048, 8, 10, 2, False, 10_811),
    MptRow("7b", 2048, 8, 6, 2, False, 4_641),
    MptRow("13b", 2048, 8, 2, 3, False, 2_262),
    MptRow("30b", 2048, 8, 3, 21, True, 916),
    MptRow("70b", 2048, 64, 8, 4, True, 410),
    MptRow("125m", 4096, 8, 16, 2, False, 118_396),
    MptRow("1b", 4096, 8, 7, 4, False, 17_807),
    MptRow("3b", 4096, 8, 5, 6, False, 9_457),
    MptRow("7b", 4096, 8, 16, 2, True, 3_684),
    MptRow("13b", 4096, 8, 10, 3, True, 2_060),
    MptRow("3b", 8192, 8, 3, 6, False, 7_695),
    MptRow("7b", 8192, 8, 8, 2, True, 3_206),
)
MPT_H100 = (
    MptRow("760m", 2048, 8, 24, 2, False, 63_147),
    MptRow("760m", 2048, 32, 24, 1, False, 67_971),
    MptRow("1b", 2048, 8, 14, 1, False, 45_455),
    MptRow("1b", 2048, 64, 20, 1, False, 44_402),
    MptRow("3b", 2048, 16, 10, 3, False, 24_142),
    MptRow("3b", 2048, 64, 6, 3, False, 22_525),
    MptRow("7b", 2048, 8, 6, 1, False, 10_643),
    MptRow("13b", 2048, 8, 2, 1, False, 4_792),
    MptRow("13b", 2048, 64, 2, 1, False, 4_800),
    MptRow("30b", 2048, 8, 3, 21, True, 2_002),
    MptRow("30b", 2048, 32, 14, 3, True, 2_308),
    MptRow("70b", 2048, 64, 8, 4, True, 1_039),
    MptRow("1b", 4096, 8, 7, 4, False, 38_535),
    MptRow("3b", 4096, 8, 5, 6, False, 20_964),
    MptRow("7b", 4096, 8, 16, 2, True, 8_611),
    MptRow("13b", 4096, 8, 10, 3, True, 4_717),
    MptRow("3b", 8192, 8, 3, 6, False, 16_578),
    MptRow("7b", 8192, 8, 8, 2, True, 6_935),
)
