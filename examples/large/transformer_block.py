"""A block of a million parameters as a small language model: AdamW, 50 steps, the next word from those before."""

import torch
from torch import nn
from torch.nn import functional as F

WORDS, WIDTH, HEADS, LENGTH, BATCH, STEPS = 384, 256, 4, 64, 8, 50


class Attention(nn.Module):
    """Every place attends to itself and those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, _ = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))


class Block(nn.Module):
    """Embeddings of words and places, attention and a perceptron with LayerNorm before each, logits of the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.words(words) + self.places.weight
        x = x + self.attention(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x)).transpose(1, 2)


torch.manual_seed(0)
model = Block()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
# Words that mostly follow one another.
jumps = torch.where(torch.rand(BATCH * 8, LENGTH + 1) < 0.9, 1, torch.randint(0, WORDS, (BATCH * 8, LENGTH + 1)))
text = jumps.cumsum(1) % WORDS

for step in range(STEPS):
    rows = text[step % 8 * BATCH :][:BATCH]
    loss = F.cross_entropy(model(rows[:, :-1]), rows[:, 1:])
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, loss {loss.item():.4f}")
