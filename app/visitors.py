"""Who looks at the page, what each of them waits for, does not want any longer, and saw last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

import streamlit as st
from streamlit import runtime
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.shown import Answer

LAST = 8  #: answers that a visitor is shown greyed until the new one is there
_VISIT = "_visit"


@dataclass
class Visit:
    """One open page.

    Args:
        who: the server's name for it.
        asked: keys of questions asked in this run of the page; before: in the run before it.
        cancelled: key -> method of what was cancelled by hand and is not asked again by itself.
        last: (star, method) -> the answer seen last.
    """

    who: str
    asked: set[str] = field(default_factory=set)
    before: set[str] = field(default_factory=set)
    cancelled: dict[str, str] = field(default_factory=dict)
    last: OrderedDict[tuple[str, str], Answer] = field(default_factory=OrderedDict)

    def begin(self) -> None:
        """A run of the page begins. One that was broken off by a slider asked too."""
        self.before |= self.asked
        self.asked = set()

    def left(self) -> set[str]:
        """A run of the page ended: what was asked before and is not any longer."""
        gone, self.before = self.before - self.asked, set()
        return gone

    def saw(self, star: str, answers: Iterable[Answer]) -> None:
        """Remember what was shown."""
        for answer in answers:
            self.last[star, answer.method] = answer
            self.last.move_to_end((star, answer.method))
        while len(self.last) > LAST:
            self.last.popitem(last=False)


_NOBODY = Visit("script")  # outside of a page


def visit() -> Visit:
    """The visit that this run of the page belongs to."""
    context = get_script_run_ctx(suppress_warning=True)
    if context is None:
        return _NOBODY
    if _VISIT not in st.session_state:
        st.session_state[_VISIT] = Visit(context.session_id)
    found: Visit = st.session_state[_VISIT]
    return found


def here(who: str) -> bool:
    """False once a page was closed."""
    if who == _NOBODY.who or not runtime.exists():
        return True
    return bool(runtime.get_instance().is_active_session(who))
