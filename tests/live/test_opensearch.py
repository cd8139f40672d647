"""The contract suite of indexes on a real OpenSearch: the text leg with an index a namespace, with shared ones, with
the cluster's own analysers, and paired with another engine."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import pytest

from indexers.edge import EdgeIndex
from indexers.legs import PairedIndex
from indexers.memory import MemoryIndex
from indexers.opensearch import OpenSearchIndex
from indexers.opensearch_client import Access
from indexers.opensearch_places import Layout
from indexers.opensearch_schema import Analysis
from tests.contracts.backends import Backend, ReadFromText
from tests.contracts.test_index import *  # noqa: F403 (the suite; its indexes are those made here)
from tests.live.opensearch import OpenSearch


@pytest.fixture(scope="module", params=["own", "shared", "analysed", "paired"])
def backend(
    request: pytest.FixtureRequest, search_node: OpenSearch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    root = tmp_path_factory.mktemp("edge")
    layout = Layout(f"t{uuid4().hex[:8]}", max_own=0 if request.param == "shared" else 100, replicas=0)
    analysis: Analysis = "opensearch" if request.param == "analysed" else "refdesk"

    def text() -> OpenSearchIndex:
        return OpenSearchIndex.connect(Access([search_node.url]), layout, analysis)

    if request.param == "paired":
        made = Backend(lambda: PairedIndex(EdgeIndex.open(root), text()))
    else:
        made = Backend(lambda: ReadFromText(MemoryIndex(), text()))
    made.text_scores_differ = True
    yield made
    asyncio.run(made.close())
