// Show what has come and what has become of it, as it happens. Without JavaScript the page reloads itself instead.
const list = document.getElementById("messages");
let shown = "";

async function look() {
  try {
    const answer = await fetch(list.dataset.url);
    const html = answer.ok ? await answer.text() : shown;
    if (html !== shown) {
      list.innerHTML = shown = html;
    }
  } catch {
    // The server is away; it may come back.
  }
  setTimeout(look, 2000);
}

look();
