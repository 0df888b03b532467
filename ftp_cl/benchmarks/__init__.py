"""Streams for continual learning with unseen domains: datasets, and Avalanche benchmarks made from them."""

import importlib
from typing import TYPE_CHECKING, Any

from ftp_cl.benchmarks.cifar import Cifar, CorruptedCifar, split_cifar10, split_cifar100
from ftp_cl.benchmarks.core50 import CORE50_CATEGORIES, CORE50_SESSIONS, Core50, core50
from ftp_cl.benchmarks.digits import Digits, split_digits
from ftp_cl.benchmarks.domain_folder import DomainFolder, domain_folder
from ftp_cl.benchmarks.domainnet import DOMAINNET_DOMAINS, DomainNet, domainnet, domainnet_domains
from ftp_cl.benchmarks.emoji import emoji_styles, emoji_text, split_emoji
from ftp_cl.benchmarks.emoji_domains import CLASSES, DOMAINS, EmojiDomains
from ftp_cl.benchmarks.emoji_words import WORDINGS, EmojiText, emoji_texts
from ftp_cl.benchmarks.fashion_mnist import FASHION_CLASSES, FashionMnist, split_fashion_mnist
from ftp_cl.benchmarks.folder import ImageFolder, image_folder
from ftp_cl.benchmarks.grocery_store import GroceryStore, grocery_store
from ftp_cl.benchmarks.imagenet import ImageNet, imagenet
from ftp_cl.benchmarks.imagenet_r import ImageNetR, split_imagenet_r
from ftp_cl.benchmarks.text import split_text, text_domains
from ftp_cl.benchmarks.text_tables import TextTable
from ftp_cl.benchmarks.tiny_imagenet import TinyImageNet, split_tiny_imagenet

if TYPE_CHECKING:
    from ftp_cl.benchmarks.corruptions import CORRUPTIONS, CorruptedDataset, corrupt, with_corruptions
    from ftp_cl.benchmarks.identity import data_identity
    from ftp_cl.benchmarks.label_budget import few_labels, hidden_labels
    from ftp_cl.benchmarks.ood import with_ood

__all__ = [
    "CLASSES",
    "CORE50_CATEGORIES",
    "CORE50_SESSIONS",
    "CORRUPTIONS",
    "DOMAINNET_DOMAINS",
    "DOMAINS",
    "FASHION_CLASSES",
    "WORDINGS",
    "Cifar",
    "Core50",
    "CorruptedCifar",
    "CorruptedDataset",
    "Digits",
    "DomainFolder",
    "DomainNet",
    "EmojiDomains",
    "EmojiText",
    "FashionMnist",
    "GroceryStore",
    "ImageFolder",
    "ImageNet",
    "ImageNetR",
    "TextTable",
    "TinyImageNet",
    "core50",
    "corrupt",
    "data_identity",
    "domain_folder",
    "domainnet",
    "domainnet_domains",
    "emoji_styles",
    "emoji_text",
    "emoji_texts",
    "few_labels",
    "grocery_store",
    "hidden_labels",
    "image_folder",
    "imagenet",
    "split_cifar10",
    "split_cifar100",
    "split_digits",
    "split_emoji",
    "split_fashion_mnist",
    "split_imagenet_r",
    "split_text",
    "split_tiny_imagenet",
    "text_domains",
    "with_corruptions",
    "with_ood",
]

# These import Avalanche, which takes seconds that users of the datasets alone need not wait.
_LATE = {
    "CORRUPTIONS": "corruptions",
    "CorruptedDataset": "corruptions",
    "corrupt": "corruptions",
    "data_identity": "identity",
    "few_labels": "label_budget",
    "hidden_labels": "label_budget",
    "with_corruptions": "corruptions",
    "with_ood": "ood",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
