"""The types of a method's tensors."""

# ExecuTorch's ScalarTypes, as far as they occur, by their numbers in the file.
NAMES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
         7: "float64", 11: "bool", 15: "bfloat16"}  # fmt: skip
# Bytes of an element.
ITEM_SIZES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 8, 5: 2, 6: 4, 7: 8, 11: 1, 15: 2}
