"""Whether what a search found is close enough to the question to answer from: judged before anything is generated.

Questions about something else are refused here. A question on the documents' subject that they leave open looks like
one that they answer (AUC 0.63 on SQuAD's adversarial ones): it is for the generator to refuse those.
"""

from server.base import SearchResult

# The lowest hundredth at which, on one half of the questions (python -m eval.answers, docs/answers.md), 0.90 of
# SciFact's claims asked of SQuAD are refused; on the other half it refuses 0.91 of them, and 0.09 of SQuAD's own.
# Measured with all-MiniLM-L6-v2; another embedder has other scores, and the command says which threshold suits it.
DEFAULT_THRESHOLD = 0.43

# The best cosine that as many of SQuAD's answerable questions stay below (0.09) as of the score above.
_DENSE_THRESHOLD = 0.41

_SCORE_OF = "late-interaction"


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
