"""What transformers makes of a conversation with Llama 3's published chat template."""

from transformers import PreTrainedTokenizerFast

# The template of Meta-Llama-3-8B-Instruct.
TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def chat_tokenizer(**where):
    """`where`: tokenizer_file, or tokenizer_object."""
    tokenizer = PreTrainedTokenizerFast(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", **where)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def render(tokenizer, conversation, generation_prompt=False):
    return tokenizer.apply_chat_template(
        conversation, add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
    )


def learned(tokenizer, conversation):
    """1 on each assistant's answer and the token that ends it: what a longer prefix of the conversation adds."""
    mask = []
    for i, message in enumerate(conversation):
        answer = message["role"] == "assistant"
        before = len(render(tokenizer, conversation[:i], True)) if answer else 0
        end = len(render(tokenizer, conversation[: i + 1]))
        mask += [0] * (max(before, len(mask)) - len(mask))
        mask += [int(answer)] * (end - len(mask))
    return mask
