// Print new arrivals at the top as they come. Without JavaScript the page reloads itself instead.
const list = document.getElementById("arrivals");

async function look() {
  const latest = list.querySelector("[data-id]")?.dataset.id ?? 0;
  try {
    const answer = await fetch(`${list.dataset.url}?after=${latest}`);
    const html = answer.ok ? (await answer.text()).trim() : "";
    if (html) {
      list.querySelector(".waiting")?.remove();
      list.insertAdjacentHTML("afterbegin", html);
    }
  } catch {
    // The server is away; it may come back.
  }
  setTimeout(look, 2000);
}

look();
