"""Column names that say what they mean, in the languages data is most often made in."""

import re
import unicodedata
from collections.abc import Iterable


def _all(words: str) -> set[str]:
    return set(words.split())


PROMPTS = _all("prompt q query input user human instruction customer_message user_message eingabe entrada entrée 指令")
PROMPTS |= _all(
    "question frage pregunta pergunta domanda вопрос запрос 问题 問題 提问 質問 질문 soru vraag pytanie سؤال प्रश्न"
)
RESPONSES = _all("completion response a output reply assistant agent_reply assistant_message answer answers antwort")
RESPONSES |= _all(
    "respuesta resposta réponse reponse risposta ответ 回答 答案 答え 답변 답 cevap antwoord odpowiedź جواب उत्तर"
)
RESPONSES |= _all("ausgabe salida sortie saída 输出")
CONTEXTS = {"context", "kontext", "contexto", "contexte", "contesto", "контекст", "上下文", "文脈", "문맥", "bağlam"}
TEXTS = {"text", "content", "document", "body", "passage", "texto", "texte", "testo", "текст", "文本", "本文", "텍스트"}
SENTENCES = TEXTS | {"sentence", "utterance", "review", "satz", "frase", "phrase", "文", "문장"}
LABELS = _all("label labels category class intent sentiment target topic emotion kategorie etikett klasse etiqueta")
LABELS |= _all("categoría categoria catégorie classe метка категория класс 标签 类别 ラベル カテゴリ 라벨 카테고리")
LABEL_NAMES = {"label_text", "label_name", "category_name", "class_name", "intent_name"}
CHOSEN = {"chosen", "preferred", "accepted", "chosen_response", "response_chosen"}
REJECTED = {"rejected", "dispreferred", "rejected_response", "response_rejected"}
VERDICTS = {"label", "kto_tag", "liked", "thumbs_up", "desirable"}
# Columns that may stand beside a text without saying anything about what is to be learned from it.
ASIDE = {"id", "idx", "index", "uuid", "url", "source", "date", "timestamp", "created", "meta", "metadata", "language"}


def key(column: str) -> str:
    """Return the name as it is looked up: small letters, underscores for blanks and dashes."""
    return re.sub(r"[\s-]+", "_", unicodedata.normalize("NFKC", column).strip().lower())


def named(columns: list[str], names: Iterable[str]) -> list[str]:
    """Return the columns that have one of these names."""
    return [column for column in columns if key(column) in names]
