"""What an owner types on the machine itself: one module for each verb of `shrk`, opened only when it is asked for."""
