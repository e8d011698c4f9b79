"""Ask once. Needs SHRK_API_KEY, and SHRK_BASE_URL unless the coordinator is on this machine's port 8080."""

from shrk import Shrk

client = Shrk()
answer = client.chat.completions.create(
    model="shark-tiny",
    messages=[{"role": "user", "content": "Count to 10"}],
)
print(answer.choices[0].message.content)
