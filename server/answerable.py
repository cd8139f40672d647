"""Whether what a search found is close enough to the question to answer from: judged before anything is generated.

Questions about something else are refused here. A question on the documents' subject that they leave open looks like
one that they answer (AUC 0.63 on SQuAD's adversarial ones): it is for the generator to refuse those.
"""

from models.base import GeneratorInfo
from server.base import SearchResult

# Both were chosen on one half of the questions and are reported on the other (python -m eval.answers; docs/answers.md),
# with all-MiniLM-L6-v2; another embedder has other scores, and the command says which threshold suits it.
# The lowest hundredth that refuses 0.90 of SciFact's claims asked of SQuAD: 0.91 and, wrongly, 0.08 of SQuAD's own.
DEFAULT_THRESHOLD = 0.43
# The extractive generator refuses by the support of its sentences too, and better: both together 0.93 and 0.05.
EXTRACTIVE_THRESHOLD = 0.40

# The best cosine that as many of SQuAD's answerable questions stay below as of DEFAULT_THRESHOLD.
_DENSE_THRESHOLD = 0.39

_SCORE_OF = "late-interaction"


def threshold_for(generator: GeneratorInfo) -> float:
    """The answerability below which a question is refused without asking this generator."""
    return DEFAULT_THRESHOLD if generator.is_language_model else EXTRACTIVE_THRESHOLD


def answerability(result: SearchResult) -> float:
    """How close the best chunk is to the question: its late-interaction score (mean MaxSim a question token, -1 to 1).

    Without it, another reranker's scale being unknown, the dense leg's best cosine, scaled so that the same share of
    answerable questions lies below the threshold. Without either there is nothing to judge by: 1. No hits: 0.
    """
    if not result.hits:
        return 0.0
    if result.reranker == _SCORE_OF:
        return result.best_rerank
    if result.best_dense:
        return result.best_dense * DEFAULT_THRESHOLD / _DENSE_THRESHOLD
    return 1.0
