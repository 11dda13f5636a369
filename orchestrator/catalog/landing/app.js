"use strict";

const $ = (id) => document.getElementById(id);

function setMenu(open) {
  $("menu").classList.toggle("open", open);
  $("menu-button").setAttribute("aria-expanded", String(open));
}

$("menu-button").addEventListener("click", () => setMenu(!$("menu").classList.contains("open")));
$("menu").addEventListener("click", (event) => {
  if (event.target.closest("a")) setMenu(false);
});
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !$("menu").classList.contains("open")) return;
  setMenu(false);
  $("menu-button").focus();
});

/* Buy or rent: every price carries both texts. */
for (const button of document.querySelectorAll("[data-pay]")) {
  button.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-pay]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    for (const part of $("plans").querySelectorAll("[data-once]")) {
      part.textContent = part.dataset[button.dataset.pay];
    }
  });
}

$("plans").addEventListener("click", (event) => {
  const link = event.target.closest("[data-kit]");
  if (link) $("kit").value = link.dataset.kit;
});

$("order-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const email = $("email");
  const valid = email.value.trim() !== "" && email.checkValidity();
  email.setAttribute("aria-invalid", String(!valid));
  if (!valid) {
    $("order-message").textContent = "Please write an email address, such as ines@example.org.";
    email.focus();
    return;
  }
  $("order-message").textContent = `Thank you. One ${$("kit").value} kit is set aside for ${email.value.trim()}.`;
  event.target.reset();
});
