(function () {
  "use strict";
  var box = document.getElementById("filter");
  var said = document.getElementById("filtered");
  var folds = Array.from(document.querySelectorAll("details:not(.sql)"));
  var rows = Array.from(document.querySelectorAll(".row"));
  var texts, open, waiting;

  // What a row says of itself: its SQL holds words that many rows have.
  function saidBy(row) {
    var own = Array.from(row.childNodes).filter(function (node) { return node.className !== "sql"; });
    return own.map(function (node) { return node.textContent; }).join(" ").toLowerCase();
  }

  function remember() {
    return folds.map(function (fold) { return fold.open; });
  }

  function restore(states) {
    folds.forEach(function (fold, place) { fold.open = states[place]; });
  }

  function filter() {
    var text = box.value.trim().toLowerCase(), hits = 0;
    texts = texts || rows.map(saidBy);
    open = open || remember();
    rows.forEach(function (row, place) {
      row.hidden = !texts[place].includes(text);
      hits += row.hidden ? 0 : 1;
    });
    restore(open);
    folds.forEach(function (fold) {
      var any = fold.querySelector(".row");
      var hit = any && fold.querySelector(".row:not([hidden])");
      fold.hidden = Boolean(any && !hit);
      if (text && hit) { fold.open = true; }
    });
    if (!text) { open = undefined; }
    said.textContent = text ? hits + " of " + rows.length + " rows hold it" : "";
  }

  if (rows.length) {
    document.getElementById("filtering").hidden = false;
    box.addEventListener("input", function () {
      window.clearTimeout(waiting);
      waiting = window.setTimeout(filter, 120);
    });
  }

  // Browsers that cannot open folds by style alone open them for the printer.
  var before;
  window.addEventListener("beforeprint", function () {
    before = remember();
    folds.forEach(function (fold) { fold.open = true; });
  });
  window.addEventListener("afterprint", function () {
    if (before) { restore(before); }
  });
})();
