"use strict";
// Shows the buttons, which do nothing without this script, and copies the code that follows a button that is clicked.
// navigator.clipboard exists only over HTTPS and on localhost; execCommand copies the selection over plain HTTP too.
for (const button of document.querySelectorAll("button.copy")) {
  const code = button.parentElement.nextElementSibling.firstElementChild;
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    let copied = document.execCommand("copy");
    if (!copied && navigator.clipboard) {
      copied = await navigator.clipboard.writeText(code.textContent).then(() => true, () => false);
    }
    button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
  });
}
