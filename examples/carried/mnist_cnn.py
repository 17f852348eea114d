"""The convolutional net of PyTorch's "What is torch.nn really?": rows of 784 pixels, a ``fit`` function, momentum."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim


class Mnist_CNN(nn.Module):  # noqa: N801
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 16, kernel_size=3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(16, 10, kernel_size=3, stride=2, padding=1)

    def forward(self, xb):
        xb = xb.view(-1, 1, 28, 28)
        xb = F.relu(self.conv1(xb))
        xb = F.relu(self.conv2(xb))
        xb = F.relu(self.conv3(xb))
        xb = F.avg_pool2d(xb, 4)
        return xb.view(-1, xb.size(1))


def get_model():
    model = Mnist_CNN()
    return model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def loss_batch(model, loss_func, xb, yb, opt=None):
    loss = loss_func(model(xb), yb)
    if opt is not None:
        loss.backward()
        opt.step()
        opt.zero_grad()
    return loss.item(), len(xb)


def fit(epochs, model, loss_func, opt, train_dl, valid_dl):
    for epoch in range(epochs):
        model.train()
        for xb, yb in train_dl:
            loss_batch(model, loss_func, xb, yb, opt)
        model.eval()
        with torch.no_grad():
            losses, sizes = zip(*[loss_batch(model, loss_func, xb, yb) for xb, yb in valid_dl])
        print(epoch, np.sum(np.multiply(losses, sizes)) / np.sum(sizes))


if __name__ == "__main__":
    torch.manual_seed(2)
    prototypes = torch.rand(10, 784)

    def dataset(rows):
        labels = torch.randint(0, 10, (rows,))
        return torch.utils.data.TensorDataset((prototypes[labels] + 0.3 * torch.rand(rows, 784)).clamp(0, 1), labels)

    train_dl = torch.utils.data.DataLoader(dataset(160), batch_size=64, shuffle=True)
    valid_dl = torch.utils.data.DataLoader(dataset(32), batch_size=32)
    model, opt = get_model()
    fit(3, model, F.cross_entropy, opt, train_dl, valid_dl)
