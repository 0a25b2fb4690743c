// A panel that is wider or higher than its place is scrolled by the keyboard too: it takes the focus then.

import { set } from "./elements.js";

export function keepScrollable() {
  for (const body of document.querySelectorAll(".panel :is(.body, .wide-table)")) {
    const isLarger = body.scrollWidth > body.clientWidth || body.scrollHeight > body.clientHeight;
    set(body, "tabindex", isLarger ? "0" : "");
  }
}
