"""Which harness of fuzzing calls what the native module binds: an exact table, which a test keeps true.

`kernels` is the target of that name, which calls the module itself. `native-NAME:FUNCTION` is
`native/NAME.cpp`, which calls the C++ function behind the binding, under libFuzzer with the sanitizers.
"""

from __future__ import annotations

_DECIMALS = ("kernels", "native-text:append_f32_json")
_LINES = ("kernels", "native-text:parse_jsonl")
_WALKS = ("kernels", "native-graph:search_graph", "native-bits:search_graph")
_SCANS = ("kernels", "native-lists:search_lists")
_CODES = ("kernels", "native-codes:search_codes")
_BITS = ("kernels", "native-bits:search_bits")

HARNESSES: dict[str, tuple[str, ...]] = {
    "JsonlBatch": _LINES,
    "JsonlError": _LINES,
    "SingleListSearch": _SCANS,
    "SingleListSearch.nearest": _SCANS,
    "SingleSearch": _WALKS,
    "SingleSearch.nearest": _WALKS,
    "StoredBits": _BITS,
    "StoredBits.search": _BITS,
    "StoredCodes": _CODES,
    "StoredCodes.search": _CODES,
    "StoredGraph": _WALKS,
    "StoredGraph.search": _WALKS,
    "StoredLists": _SCANS,
    "StoredLists.search": _SCANS,
    "_crc32c_portable": ("kernels", "native-bytes:crc32c_portable"),
    "_format_f32_json_portable": _DECIMALS,
    "_round_number": ("kernels", "native-text:nearest_f32_of_text"),
    "assign_clusters": ("kernels", "native-stored:assign_clusters", "native-train:assign_clusters"),
    "carry_graph": ("kernels", "native-stored:carry_graph"),
    "check_finite": ("kernels", "native-stored:first_non_finite"),
    "check_vectors": ("kernels", "native-bytes:check_vectors"),
    "check_graph": ("kernels", "native-stored:check_graph"),
    "coarsen_codes": ("kernels", "native-stored:coarsen_codes"),
    "combine_digest": ("kernels", "native-bytes:combine_digest"),
    "compare_strings": ("kernels", "native-bytes:compare_strings"),
    "contains_strings": ("kernels", "native-bytes:contains_strings"),
    # Their logic is in the binding.
    "copy_vector": ("kernels",),
    "count_bits": ("kernels",),
    "crc32c": ("kernels", "native-bytes:crc32c"),
    "crc32c_blocks": ("kernels", "native-bytes:crc32c_blocks"),
    "dictionary_strings": ("kernels", "native-bytes:dictionary_strings"),
    "digest_plain": ("kernels", "native-bytes:digest_plain"),
    "distances": ("kernels",),
    "encode_bits": ("kernels", "native-bits:encode_bits"),
    "encode_codes": ("kernels", "native-stored:encode_rows"),
    "encode_frame": ("kernels",),
    "encode_product": ("kernels", "native-stored:encode_products", "native-train:encode_products"),
    "extend_graph": (
        "kernels", "native-stored:extend_graph", "native-bits:extend_graph", "native-train:extend_graph",
        "native-train:link_products",
    ),
    "find_values": ("kernels", "native-bits:find_values"),
    "format_f32_json": _DECIMALS,
    "gather_strings": ("kernels", "native-bytes:gather_strings"),
    "hash_bytes": ("kernels", "native-bytes:hash_pair"),
    "hash_ids_u64": ("kernels", "native-bytes:hash_ids_u64"),
    "hash_ids_var": ("kernels", "native-bytes:hash_ids_var"),
    "hash_strings": ("kernels", "native-bytes:hash_strings"),
    "hash_values": ("kernels", "native-bytes:hash_values"),
    "hash_vectors": ("kernels", "native-bytes:hash_rows"),
    "ids_ascend": ("kernels", "native-bytes:ids_ascend"),
    "lookup_u64": ("kernels", "native-bytes:lookup_u64"),
    "lookup_var": ("kernels", "native-bytes:lookup_var"),
    "mask_within": ("kernels", "native-stored:within_int64", "native-stored:within_float64"),
    "number_ids": ("kernels",),
    "parse_jsonl": _LINES,
    "product_residuals": ("kernels", "native-train:product_residuals"),
    "product_terms": ("kernels", "native-train:product_terms"),
    "search_flat": ("kernels", "native-codes:search", "native-bits:search"),
    "set_variant": ("kernels", "native-train:select_variant"),
    "sort_ids_var": ("kernels", "native-bytes:sort_ids_var"),
    "train_clusters": ("kernels", "native-train:train_clusters"),
    "train_codes": ("kernels", "native-codes:train_codes"),
    "train_product": ("kernels", "native-train:train_books"),
    "variant": ("kernels",),
    "variants": ("kernels", "native-train:variant_names"),
    "verify_blocks": ("kernels", "native-bytes:verify_blocks"),
}  # fmt: skip
