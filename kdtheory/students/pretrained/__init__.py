"""Anyone's own causal language models and data: a pair with one vocabulary, blocks of tokens, and ROUGE-L.

>>> from kdtheory.students.pretrained import instructions, pair, rouge
>>> both = pair.Pair.load("folder/of/teacher", "folder/of/student")                    # doctest: +SKIP
>>> data = instructions.load("instructions.jsonl", both.tokenizer, length=512)         # doctest: +SKIP
"""
