import React, { useEffect } from "react";
import { useDispatch, useSelector } from "react-redux";
import axios from "axios";
import classNames from "classnames";
import dayjs from "dayjs";
import { loaded } from "./store.js";

export function Orders({ revision }) {
  const dispatch = useDispatch();
  const list = useSelector((s) => s.orders.list);
  useEffect(() => {
    axios.get("/api/orders").then((r) => dispatch(loaded(r.data)));
  }, []);
  return (
    <main title={revision}>
      {list.map((o) => (
        <p key={o.id} className={classNames("order", { big: o.cents > 100000 })}>
          {dayjs(o.at).format("D MMM YYYY")} {o.customer} {o.cents / 100}
        </p>
      ))}
    </main>
  );
}
