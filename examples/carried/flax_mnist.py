"""The net of Flax's MNIST tutorial, from the PyTorch side: two convolutions with BatchNorm, average pooling, AdamW."""

import torch
from torch import nn


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding="same")
        self.batch_norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding="same")
        self.batch_norm2 = nn.BatchNorm2d(16)
        self.avg_pool = nn.AvgPool2d(2)
        self.linear1 = nn.Linear(7 * 7 * 16, 32)
        self.linear2 = nn.Linear(32, 10)

    def forward(self, x):
        x = self.avg_pool(torch.relu(self.batch_norm1(self.conv1(x))))
        x = self.avg_pool(torch.relu(self.batch_norm2(self.conv2(x))))
        x = torch.relu(self.linear1(x.flatten(1)))
        return self.linear2(x)


def main():
    torch.manual_seed(0)
    train_steps, eval_every, batch_size = 8, 4, 16
    model = CNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.005, betas=(0.9, 0.999), weight_decay=1e-4)

    def batch():
        labels = torch.randint(0, 10, (batch_size,))
        return torch.rand(batch_size, 1, 28, 28) * labels.view(-1, 1, 1, 1) / 9, labels

    test_images, test_labels = batch()
    for step in range(1, train_steps + 1):
        images, labels = batch()
        model.train()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % eval_every == 0:
            model.eval()
            with torch.inference_mode():
                accuracy = (model(test_images).argmax(1) == test_labels).float().mean()
            print(f"step {step}: loss {loss.item():.4f}, test accuracy {accuracy.item():.2f}")


if __name__ == "__main__":
    main()
