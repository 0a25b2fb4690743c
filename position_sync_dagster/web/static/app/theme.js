// The colours, before anything is drawn: what was chosen, or what the system prefers.

(() => {
  const key = "money.theme";
  const preferred = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  const root = document.documentElement;
  root.dataset.theme = localStorage.getItem(key) ?? preferred;

  function swap() {
    root.dataset.theme = root.dataset.theme === "light" ? "dark" : "light";
    localStorage.setItem(key, root.dataset.theme);
    root.dispatchEvent(new CustomEvent("theme"));
  }

  addEventListener("DOMContentLoaded", () => document.getElementById("theme").addEventListener("click", swap));
})();
