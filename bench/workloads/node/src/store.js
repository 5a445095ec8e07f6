import { configureStore, createSlice } from "@reduxjs/toolkit";
import { groupBy, sumBy } from "lodash-es";
import { z } from "zod";

export const Order = z.object({ id: z.string(), customer: z.string(), cents: z.number().int(), at: z.string() });

const orders = createSlice({
  name: "orders",
  initialState: { list: [] },
  reducers: {
    loaded(state, action) {
      state.list = z.array(Order).parse(action.payload);
    },
  },
});

export const { loaded } = orders.actions;
export const totals = (state) =>
  Object.entries(groupBy(state.orders.list, "customer")).map(([customer, list]) => ({ customer, cents: sumBy(list, "cents") }));
export const store = configureStore({ reducer: { orders: orders.reducer } });
