// Not a module, so that browsers that lack what the page needs can say so.
(function () {
  function say(text) {
    document.getElementById("app").textContent = text;
  }
  if (
    !("DecompressionStream" in window) ||
    !HTMLScriptElement.supports ||
    !HTMLScriptElement.supports("importmap")
  ) {
    say("This page needs a browser from 2023 or newer (import maps and DecompressionStream).");
    return;
  }
  import("inspector/main")
    .then(function (main) {
      return main.open();
    })
    .catch(function (error) {
      console.error(error);
      say("The record cannot be shown: " + error.message);
    });
})();
