"""Nodes of a scene: all of a class, and new ones that are not in it yet. No qt."""

from __future__ import annotations


def nodesOf(scene, className: str) -> list:
    """In the scene's order; those of derived classes, too."""
    return [scene.GetNthNodeByClass(n, className) for n in range(scene.GetNumberOfNodesByClass(className))]


def newNode(scene, className: str, name: str = "", tag: str = ""):
    """To be added by who asks, once it is set up. tag: of a singleton."""
    node = scene.CreateNodeByClass(className)
    node.UnRegister(None)
    if name:
        node.SetName(name)
    if tag:
        node.SetSingletonTag(tag)
    return node
