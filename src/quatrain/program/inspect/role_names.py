"""The parameters' names in Meta's checkpoints, by the role of a linear."""

META_NAMES = {
    "q": "attention.wq", "k": "attention.wk", "v": "attention.wv", "o": "attention.wo",
    "gate": "feed_forward.w1", "up": "feed_forward.w3", "down": "feed_forward.w2",
}  # fmt: skip
CONV_NAMES = {
    "conv B": "conv.B_proj", "conv C": "conv.C_proj", "conv x": "conv.x_proj",
    "conv out": "conv.out_proj",
}  # fmt: skip
LATENT_NAMES = {
    "q a": "attention.wq_a", "q b": "attention.wq_b", "kv a": "attention.wkv_a",
}  # fmt: skip
DELTA_NAMES = {
    "delta qkv": "attention.in_proj_qkv", "delta decay": "attention.in_proj_a",
    "delta strength": "attention.in_proj_b", "delta gate": "attention.in_proj_z",
    "delta out": "attention.out_proj",
}  # fmt: skip
MAMBA_NAMES = {
    "mamba xBC": "mamba.in_proj_xBC", "mamba dt": "mamba.in_proj_dt",
    "mamba gate": "mamba.in_proj_z", "mamba out": "mamba.out_proj",
}  # fmt: skip
_OTHER_NAMES = {
    "output gate": "attention.og", "router": "feed_forward.router",
    "rotation": "feed_forward.w2.rotation",
}  # fmt: skip
ROLE_NAMES = META_NAMES | CONV_NAMES | LATENT_NAMES | DELTA_NAMES | MAMBA_NAMES | _OTHER_NAMES
