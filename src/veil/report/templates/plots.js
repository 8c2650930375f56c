(function () {
  "use strict";
  var page = JSON.parse(document.getElementById("figures").textContent);
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var fine = window.matchMedia("(pointer: fine)");
  var printing = false;

  // A copy of a figure with every light colour replaced where the page is dark.
  function painted(value, colours) {
    if (Array.isArray(value)) return value.map(function (v) { return painted(v, colours); });
    if (value && typeof value === "object") {
      var copy = {};
      Object.keys(value).forEach(function (k) { copy[k] = painted(value[k], colours); });
      return copy;
    }
    return typeof value === "string" && Object.prototype.hasOwnProperty.call(colours, value) ? colours[value] : value;
  }

  function draw(id) {
    var box = document.getElementById(id);
    var figure = page.figures[id];
    var width = printing ? figure.paper : box.clientWidth;
    if (!width) return;
    var variant = figure.variants.filter(function (v) { return v.width <= width; }).pop() || figure.variants[0];
    var chosen = painted({ data: variant.data, layout: variant.layout }, dark.matches && !printing ? page.dark : {});
    chosen.layout.width = width;
    // A finger that drags across a plot scrolls the page; a mouse zooms, and a double click goes back.
    chosen.layout.dragmode = fine.matches ? "zoom" : false;
    window.Plotly.react(box, chosen.data, chosen.layout, { displayModeBar: false, doubleClick: "reset" });
  }

  function drawAll() { Object.keys(page.figures).forEach(draw); }

  var waiting = 0;
  var last = document.documentElement.clientWidth;
  window.addEventListener("resize", function () {
    if (printing || document.documentElement.clientWidth === last) return;
    last = document.documentElement.clientWidth;
    window.clearTimeout(waiting);
    waiting = window.setTimeout(drawAll, 120);
  });
  dark.addEventListener("change", drawAll);

  // Paper shows what a click would: details are opened, and closed again afterwards.
  var opened = [];
  window.addEventListener("beforeprint", function () {
    printing = true;
    opened = Array.prototype.slice.call(document.querySelectorAll("details:not([open])"));
    opened.forEach(function (d) { d.open = true; });
    drawAll();
  });
  window.addEventListener("afterprint", function () {
    printing = false;
    opened.forEach(function (d) { d.open = false; });
    drawAll();
  });
  drawAll();
})();
