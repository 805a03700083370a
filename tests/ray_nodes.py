"""A Ray cluster on this machine: a head without processors for actors, and nodes with one that can be killed."""

import os
import random
import signal
from pathlib import Path
from typing import Any

from crash_harness import commands_of_children


class Nodes:
    """The cluster, for as long as the block lasts; who connects to ``auto`` meanwhile connects to it.

    Attributes:
        cluster: Ray's own object.
    """

    def __init__(self, count: int = 2) -> None:
        self._count = count
        self.cluster: Any = None

    def __enter__(self) -> "Nodes":
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(self._count):
            self.add()
        self.cluster.wait_for_nodes()
        self.cluster._shutdown_at_exit = False  # Ray would set up signals, which a thread can't
        os.environ["RAY_ADDRESS"] = self.address
        return self

    def __exit__(self, *_: object) -> None:
        del os.environ["RAY_ADDRESS"]
        self.cluster.shutdown()

    @property
    def address(self) -> str:
        """Where it is connected to."""
        return str(self.cluster.address)

    @property
    def session(self) -> Path:
        """The folder of Ray's own files."""
        return Path(self.cluster.head_node.get_session_dir_path())

    @property
    def all(self) -> list[Any]:
        """The nodes, but for the head."""
        return sorted(self.cluster.worker_nodes, key=lambda node: str(node.unique_id))

    def add(self, **options: Any) -> Any:
        """Add a node, which is returned once it is there."""
        return self.cluster.add_node(num_cpus=1, **options)

    def kill(self, node: Any, *, at_once: bool = True) -> None:
        """Kill a node, and with it the actors on it; or have it end."""
        self.cluster.remove_node(node, allow_graceful=not at_once)

    def actors(self, name: str = "_Ranker") -> list[int]:
        """The processes of actors of a class."""
        return [
            pid
            for node in self.cluster.list_all_nodes()
            for raylet in node.all_processes.get("raylet", [])
            for pid, words in commands_of_children(raylet.process.pid).items()
            if words[0].startswith(f"ray::{name}".encode())
        ]

    def kill_actor(self, rng: random.Random, name: str = "_Ranker") -> bool:
        """Kill any of the actors of a class, if there is one."""
        found = self.actors(name)
        if found:
            os.kill(rng.choice(found), signal.SIGKILL)
        return bool(found)
