"""What Hayhooks deploys: the pipeline of peer_haystack.py, over the folder that the environment names."""

import os

from hayhooks import BasePipelineWrapper
from peer_haystack import Peer


class PipelineWrapper(BasePipelineWrapper):  # type: ignore[misc]
    def setup(self) -> None:
        self.peer = Peer(os.environ["PEER_MODEL"], os.environ["PEER_FOLDER"])
        self.peer.load()
        self.pipeline = self.peer.pipeline

    def run_api(self, question: str, top_k: int) -> list[dict[str, str | float]]:
        return [{"id": id_, "text": text, "score": score} for id_, text, score in self.peer.search(question, top_k)]
