"""Read an answer while it is generated. Needs SHRK_API_KEY; see chat.py."""

from shrk import Shrk

client = Shrk()
stream = client.chat.completions.create(
    model="shark-tiny",
    messages=[{"role": "user", "content": "Tell me about yourself"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
