import React from "react";
import { createRoot } from "react-dom/client";
import { Provider } from "react-redux";
import { BrowserRouter, Route, Routes } from "react-router-dom";
import { store } from "./store.js";
import { Chart } from "./chart.jsx";
import { Orders } from "./orders.jsx";

// What the bench's "one source line" changes.
const revision = "revision 0";

createRoot(document.getElementById("root")).render(
  <Provider store={store}>
    <BrowserRouter>
      <Routes>
        <Route path="/" element={<Orders revision={revision} />} />
        <Route path="/chart" element={<Chart />} />
      </Routes>
    </BrowserRouter>
  </Provider>,
);
