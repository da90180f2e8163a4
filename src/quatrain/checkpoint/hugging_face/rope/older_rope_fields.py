"""Refuses fields of the rotary embedding that transformers 4 and 5 read differently, unless
config.json says which version the model was trained with."""

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_type
from quatrain.checkpoint.nth_layers import FULL
from quatrain.errors import InputError


def refuse_two_values(fields: Fields) -> None:
    """Raise `InputError` if a field is stated both beside the rotary embedding's scaling and in it,
    with different values: transformers 4 uses the outer one, 5 the inner one; and if the base is
    null, which 5 does not read."""
    for stated in ("rope_scaling", "rope_parameters"):
        scaling = fields.object_of(stated)
        inner = scaling.object_of(FULL) if FULL in scaling else scaling
        for name in ("rope_theta", "partial_rotary_factor"):
            one, other = fields.get(name), inner.get(name)
            if name == "rope_theta" and one is None and name in inner and other is None:
                raise InputError(
                    f"{fields.source}: {name} is null in {stated}, and is not set elsewhere; set "
                    "it to the model's value there"
                )
            if None not in (one, other) and one != other:
                raise InputError(
                    f"{fields.source}: {name} is {one!r:.40}, but {other!r:.40} in {stated}; "
                    "remove the wrong one"
                )


def refuse_unread_base(fields: Fields, taken: float, of: str = "all layers") -> None:
    """Raise `InputError` if rope_theta is not the base that transformers 5 has `taken` for those
    layers `of` the model, whose rope_parameters state none."""
    base = fields.number("rope_theta")
    if base != taken:
        raise InputError(
            f"{fields.source}: rope_theta is {base}, which transformers 5 ignores for {of}, where "
            f"it uses {taken}; set the model's rope_parameters, with the rope_theta of {of} in "
            "them"
        )


def full_scaling(fields: Fields, full: Fields) -> Fields:
    """`full`, the rope_parameters of full-attention layers, overridden by rope_scaling. Raises
    `InputError` if rope_scaling has its kind only as `type`, which transformers 5 does not read in
    models with different rotary embeddings by layer."""
    scaling = fields.object_of("rope_scaling")
    kind = rope_type(scaling)
    if scaling and scaling.get("rope_type") is None and kind != rope_type(full):
        raise InputError(
            f"{fields.source}: rope_scaling has the type {kind!r:.40}, which transformers 4 reads "
            "for this model_type, while transformers 5 ignores it and uses "
            f"{rope_type(full)!r:.40}; set rope_type instead of type"
        )
    return full | scaling
