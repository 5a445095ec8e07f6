import React, { useEffect, useRef } from "react";
import { useSelector } from "react-redux";
import * as d3 from "d3";
import { totals } from "./store.js";

export function Chart() {
  const ref = useRef(null);
  const data = useSelector(totals);
  useEffect(() => {
    const x = d3.scaleLinear([0, d3.max(data, (d) => d.cents) ?? 1], [0, 600]);
    d3.select(ref.current).selectAll("rect").data(data).join("rect").attr("width", (d) => x(d.cents)).attr("height", 20).attr("y", (_, i) => i * 24);
  }, [data]);
  return <svg ref={ref} width="640" height="480" />;
}
