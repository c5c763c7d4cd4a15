// Light, dark, or as the system has it.

const CHOICES = ["auto", "light", "dark"];
const KEY = "ws-cluster-demo-theme";

/** Makes the button turn through the choices; `changed` is called whenever the colours are others. */
export function themes(button, changed) {
  const show = choice => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = `◐ ${choice}`;
    changed();
  };
  let choice = CHOICES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "auto";
  show(choice);
  button.onclick = () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    localStorage.setItem(KEY, choice);
    show(choice);
  };
  matchMedia("(prefers-color-scheme: dark)").onchange = changed;
}
